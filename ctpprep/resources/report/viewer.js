// SPDX-License-Identifier: Apache-2.0
// The viewer of a page: two linked panes of slices in three planes, values under the pointer, curves of
// a voxel and its homologue. Arrays are canonical: i to the patient's right, j anterior, k superior, i fastest.
// Text is inserted as text, never as markup.
'use strict';
(() => {
  const NO_VALUE = 115;
  const WHEEL_STEP = 40;
  const FLICKER_MS = 700;
  const MIRRORED = { reference_reflected: 'before', homologue_reference: 'after' };
  // axes of each plane: across the picture, up, and through it; letters at its left, right, top and bottom
  const PLANES = {
    axial: { axes: [0, 1, 2], letters: 'RLAP' },
    coronal: { axes: [0, 2, 1], letters: 'RLSI' },
    sagittal: { axes: [1, 2, 0], letters: 'APSI' },
  };
  const SCALE_BARS_MM = [50, 20, 10];
  const RAINBOW = 'rainbow';
  const PLACES = { voxel: { title: 'Voxel', colour: '#d55e00' }, homologue: { title: 'Homologue', colour: '#0072b2' } };

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    const { dataset = {}, ...others } = properties;
    Object.assign(made, others);
    Object.assign(made.dataset, dataset);
    made.append(...children);
    return made;
  }

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
    return new Response(stream).arrayBuffer();
  }

  let plotly = null;
  function loadPlotly() {
    plotly ??= inflate(document.getElementById('plotly').textContent).then((bytes) => {
      document.head.append(element('script', { textContent: new TextDecoder().decode(bytes) }));
      return window.Plotly;
    });
    return plotly;
  }

  const written = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : '–');

  /** The arrays of one series. */
  class Series {
    static async unpack(packed) {
      const series = Object.assign(new Series(), packed);
      series.colours = Object.fromEntries(Object.entries(packed.colours).map(([name, digits]) => [
        name, Uint8Array.from(digits.match(/../g), (pair) => parseInt(pair, 16)),
      ]));
      series.bits = new Uint16Array(await inflate(packed.bits));
      series.maps = await Promise.all(packed.maps.map(async (map) => (
        { ...map, codes: new Uint16Array(await inflate(map.data)), data: null }
      )));
      series.homologues = packed.homologues ? new Int32Array(await inflate(packed.homologues)) : null;
      if (packed.curves) {
        series.scores = new Int16Array(await inflate(packed.curves.scores));
        series.row = new Int32Array(series.bits.length).fill(-1);
        let count = 0;
        for (let index = 0; index < series.row.length; index += 1) {
          if (series.has('tissue_mask', index)) series.row[index] = count++;
        }
      }
      return series;
    }

    map(name) {
      return this.maps.find((map) => map.name === name);
    }

    /** Voxel size, mm. */
    get size() {
      return [0, 1, 2].map((axis) => Math.hypot(...this.affine.slice(0, 3).map((row) => row[axis])));
    }

    has(mask, index) {
      const place = this.masks.indexOf(mask);
      return place >= 0 && Boolean((this.bits[index] >> place) & 1);
    }

    covers(overlay, index) {
      return overlay.startsWith('mismatch')
        ? this.has('hypoperfusion', index) && !this.has(overlay.replace('mismatch', 'core'), index)
        : this.has(overlay, index);
    }

    value(map, index) {
      const code = map.codes[index];
      return code ? (map.offset + map.slope * (code - 1)) * map.scale : NaN;
    }

    index(i, j, k) {
      return i + this.shape[0] * (j + this.shape[1] * k);
    }

    place(index) {
      const [nx, ny] = this.shape;
      return [index % nx, Math.floor(index / nx) % ny, Math.floor(index / (nx * ny))];
    }

    homologue(index) {
      return this.homologues ? this.homologues[index] : -1;
    }

    millimetres(index) {
      const place = this.place(index);
      return this.affine.slice(0, 3).map((row) => row[3] + place.reduce((sum, at, axis) => sum + at * row[axis], 0));
    }

    /** Indices of a voxel in the files, whose axes may run otherwise. */
    inFiles(index) {
      const place = this.place(index);
      return this.fileAxes.map(({ axis, flip, size }) => {
        const at = this.origin[axis] + this.step[axis] * place[axis];
        return flip ? size - 1 - at : at;
      });
    }

    curve(index) {
      const row = this.row ? this.row[index] : -1;
      if (row < 0) return null;
      const { centres, components, scale, times, pattern } = this.curves;
      const group = pattern[this.place(index)[2]];
      const scores = scale.map((size, rank) => size * this.scores[row * scale.length + rank]);
      const heights = centres[group].map((centre, frame) => (
        components[group][frame].reduce((sum, part, rank) => sum + part * scores[rank], centre)
      ));
      return { times: times[group], heights };
    }
  }

  /** What is seen of one series. */
  class Viewer {
    constructor(frame, series) {
      this.frame = frame;
      this.series = series;
      this.neurological = false;
      this.plane = 'axial';
      this.rainbow = false;
      this.crosshair = false;
      this.cursor = -1;
      this.pinned = -1;
      this.shown = new Set(series.overlays.filter((overlay) => overlay.on).map((overlay) => overlay.name));
      this.windows = Object.fromEntries(series.maps.map((map) => [map.family, [map.low, map.high]]));
      const names = series.maps.map((map) => map.name);
      const first = names.includes('rcbf_global') ? 'rcbf_global' : names[0];
      const second = ['rcbf_local', 'tmax', first].find((name) => names.includes(name));
      this.panes = [first, second].map((name, number) => this.makePane(name, number));
      this.start();
      frame.append(this.makeTools(), ...this.panes.map((pane) => pane.box), this.makeSide());
      this.offscreen = element('canvas');
      new ResizeObserver(() => this.draw()).observe(this.panes[0].canvas);
      this.draw();
      this.read();
    }

    /** Axes of the plane that is shown: across the picture, up, and through it. */
    get axes() {
      return PLANES[this.plane].axes;
    }

    /** Columns and rows of the picture, in voxels. */
    get extent() {
      return this.axes.slice(0, 2).map((axis) => this.series.shape[axis]);
    }

    get last() {
      return this.series.shape[this.axes[2]] - 1;
    }

    /** Whether columns run against the axis: R, or in sagittal slices A, is on the left. */
    get reversed() {
      return this.plane === 'sagittal' || !this.neurological;
    }

    /** Find out how the index of a voxel changes along a row and a column of the picture. */
    layOut() {
      const [nx, ny] = this.series.shape;
      const [wide, tall] = this.extent;
      const [across, up, through] = this.axes.map((axis) => [1, nx, nx * ny][axis]);
      this.right = this.reversed ? -across : across;
      this.down = -up;
      this.corner = this.slice * through + (tall - 1) * up + (this.reversed ? (wide - 1) * across : 0);
    }

    /** Index of the voxel that is drawn at a column and a row of the picture. */
    indexAt(column, row) {
      return this.corner + column * this.right + row * this.down;
    }

    /** Column, row and slice at which a voxel is drawn. */
    onScreen(index) {
      const [wide, tall] = this.extent;
      const place = this.series.place(index);
      const [across, up, through] = this.axes.map((axis) => place[axis]);
      return [this.reversed ? wide - 1 - across : across, tall - 1 - up, through];
    }

    /** Begin at the voxel that was chosen when the series was packed. */
    start() {
      this.cursor = this.series.start ?? 0; // files of earlier versions have none
      this.slice = this.series.place(this.cursor)[2];
    }

    makePane(name, number) {
      const pane = { name };
      pane.select = element('select', {
        ariaLabel: `Map of pane ${number + 1}`,
        onchange: () => this.choose(pane, pane.select.value),
      }, ...this.series.maps.map((map) => element('option', { value: map.name, textContent: map.label })));
      pane.select.value = name;
      pane.canvas = element('canvas', { tabIndex: 0, onkeydown: (event) => this.press(event) });
      pane.canvas.setAttribute('role', 'application'); // it handles keys itself, not the screen reader
      pane.canvas.ariaDescription = 'Arrow keys move the voxel in the plane, Page Up and Page Down change the slice, Enter draws curves.';
      pane.canvas.addEventListener('wheel', (event) => this.wheel(event), { passive: false });
      pane.canvas.addEventListener('pointermove', (event) => this.point(event));
      pane.canvas.addEventListener('click', (event) => { this.point(event); this.pin(); });
      const limit = (end, label) => element('input', {
        type: 'number', step: 'any', ariaLabel: `${label} end of the window`, dataset: { end: label },
        onchange: (event) => this.changeWindow(pane, end, event.target.valueAsNumber),
      });
      pane.low = limit(0, 'lower');
      pane.high = limit(1, 'upper');
      pane.bar = element('canvas', { width: 256, height: 1, className: 'bar' });
      pane.unit = element('span', { className: 'unit' });
      pane.reset = element('button', {
        type: 'button', textContent: 'Reset', title: 'Back to the fixed window', onclick: () => this.resetWindow(pane),
      });
      pane.box = element('div', { className: 'pane', dataset: { pane: number } },
        element('div', { className: 'row' }, pane.select),
        pane.canvas,
        element('div', { className: 'row' }, pane.low, pane.bar, pane.high, pane.unit, pane.reset));
      return pane;
    }

    makeTools() {
      this.slider = element('input', {
        type: 'range', min: 0, max: this.last, step: 1, ariaLabel: 'Slice', oninput: () => this.goTo(Number(this.slider.value)),
      });
      this.sliceText = element('output', {});
      this.planes = Object.keys(PLANES).map((plane) => element('button', {
        type: 'button', textContent: `${plane[0].toUpperCase()}${plane.slice(1)}`, ariaPressed: String(plane === this.plane),
        dataset: { plane }, onclick: () => this.turnTo(plane),
      }));
      const colours = element('select', {
        ariaLabel: 'Colours', onchange: () => { this.rainbow = colours.value === RAINBOW; this.draw(); },
      }, element('option', { value: 'perceptual', textContent: 'perceptual' }), element('option', { value: RAINBOW, textContent: 'rainbow' }));
      const crosshair = element('input', {
        type: 'checkbox', value: 'crosshair', onchange: () => { this.crosshair = crosshair.checked; this.draw(); },
      });
      const way = (label, neurological) => element('label', {}, element('input', {
        type: 'radio', name: `${this.frame.parentElement.id}-way`, checked: neurological === this.neurological,
        value: neurological ? 'neurological' : 'radiological',
        onchange: () => { this.neurological = neurological; this.draw(); },
      }), label);
      const overlays = this.series.overlays.map((overlay) => {
        const box = element('input', {
          type: 'checkbox', value: overlay.name, checked: overlay.on,
          onchange: () => { this.shown[box.checked ? 'add' : 'delete'](overlay.name); this.draw(); },
        });
        const swatch = element('i', { className: `mark ${overlay.style}` });
        swatch.style.setProperty('--colour', overlay.colour);
        return element('label', {}, box, swatch, overlay.label);
      });
      const tools = element('div', { className: 'tools' },
        element('span', { className: 'group planes', role: 'group', ariaLabel: 'Plane' }, ...this.planes),
        element('label', { className: 'slice' }, 'Slice', this.slider, this.sliceText),
        element('span', { className: 'group' }, way('Radiological (R on the left)', false), way('Neurological (L on the left)', true)),
        ...(this.series.colours[RAINBOW] ? [element('label', {}, 'Colours', colours)] : []),
        element('label', {}, crosshair, 'Crosshair'),
        element('span', { className: 'group' }, ...overlays));
      this.flickers = Object.entries(MIRRORED).filter(([name]) => this.series.map(name)).map(([name, when]) => {
        const button = element('button', {
          type: 'button', className: 'flicker', textContent: `${when} registration`, ariaPressed: 'false',
          title: when === 'after' ? 'Sulci and ventricles should stay where they are' : 'Where the registration begins',
          dataset: { of: name }, onclick: () => this.flicker(button.ariaPressed === 'true' ? '' : name),
        });
        return button;
      });
      if (this.flickers.length) {
        tools.append(element('span', { className: 'group' }, 'Flicker reference and mirror image', ...this.flickers));
      }
      return tools;
    }

    makeSide() {
      const line = (title, key) => element('tr', {}, element('th', { scope: 'row', textContent: title }),
        ...Object.keys(PLACES).map((place) => element('td', { dataset: { of: place, what: key } })));
      const lines = this.series.maps.filter((map) => !(map.name in MIRRORED)).map((map) => (
        line(map.unit ? `${map.label} (${map.unit})` : map.label, map.name)));
      this.table = element('table', { className: 'values' },
        element('thead', {}, element('tr', {}, element('th', {}),
          ...Object.values(PLACES).map(({ title }) => element('th', { scope: 'col', textContent: title })))),
        element('tbody', {}, ...lines, line('Inside', 'inside'), line('Position (mm)', 'position'), line('Voxel in the files', 'files')));
      this.plot = element('div', { className: 'plot' });
      this.note = element('p', { className: 'empty', textContent: this.series.curves
        ? 'Click a voxel for its curve and that of its homologue.' : 'There are no curves: the maps were made elsewhere.' });
      this.spoken = element('p', { className: 'spoken', ariaLive: 'polite' });
      const about = ['Grey: brain without a value (CSF, vessel).'];
      if (!this.series.homologues) about.push('No homologues: the mirror registration failed.');
      const { step } = this.series;
      if (step.some((size) => size > 1)) {
        about.push(`To keep the page small every n-th voxel is shown (n = ${step.join(', ')} along left-right, back-front, feet-head).`);
      }
      return element('div', { className: 'side-by' }, this.table, this.spoken, this.plot, this.note,
        ...about.map((text) => element('p', { className: 'empty', textContent: text })));
    }

    choose(pane, name, byFlicker = false) {
      if (!byFlicker) this.flicker('');
      pane.name = name;
      pane.select.value = name;
      this.draw();
    }

    /** Show the reference and one mirror image in turn in the second pane; without a name end that. */
    flicker(name) {
      const [, pane] = this.panes;
      clearInterval(this.timer);
      this.flickers.forEach((button) => { button.ariaPressed = String(button.dataset.of === name); });
      if (!name) {
        if (this.before) this.choose(pane, this.before, true);
        this.before = null;
        return;
      }
      this.before ??= pane.name;
      const turn = () => this.choose(pane, pane.name === name ? 'reference' : name, true);
      turn();
      this.timer = setInterval(turn, FLICKER_MS);
    }

    changeWindow(pane, end, value) {
      const window = [...this.windows[this.series.map(pane.name).family]];
      window[end] = value;
      // restore an empty or reversed window
      if (Number.isFinite(value) && window[0] < window[1]) this.windows[this.series.map(pane.name).family] = window;
      this.draw();
    }

    resetWindow(pane) {
      const { family, low, high } = this.series.map(pane.name);
      this.windows[family] = [low, high];
      this.draw();
    }

    /** Show another plane, through the voxel that is marked. */
    turnTo(plane) {
      this.plane = plane;
      this.planes.forEach((button) => { button.ariaPressed = String(button.dataset.plane === plane); });
      const through = this.axes[2];
      this.slice = this.cursor >= 0 ? this.series.place(this.cursor)[through] : Math.floor(this.series.shape[through] / 2);
      this.slider.max = this.last;
      this.draw();
    }

    goTo(slice) {
      const before = this.slice;
      this.slice = Math.min(Math.max(slice, 0), this.last);
      if (this.slice === before) return false;
      if (this.cursor >= 0) {
        const place = this.series.place(this.cursor);
        place[this.axes[2]] = this.slice;
        this.cursor = this.series.index(...place);
      }
      this.draw();
      this.read();
      return true;
    }

    wheel(event) {
      if (event.ctrlKey) return;
      const turned = Math.sign(this.turned ?? 0) === Math.sign(event.deltaY) ? this.turned : 0;
      this.turned = turned + event.deltaY * (event.deltaMode ? WHEEL_STEP : 1);
      if (Math.abs(this.turned) < WHEEL_STEP) {
        event.preventDefault();
        return;
      }
      // beyond the last slice, the page scrolls
      if (this.goTo(this.slice - Math.sign(this.turned))) event.preventDefault();
      this.turned = 0;
    }

    press(event) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key in moves && this.cursor >= 0) {
        const [column, row] = this.onScreen(this.cursor);
        const [across, down] = moves[event.key];
        this.aim(column + across, row + down);
        this.announce();
      } else if (event.key === 'PageUp' || event.key === 'PageDown') {
        this.goTo(this.slice + (event.key === 'PageUp' ? 1 : -1));
        this.announce();
      } else if (event.key === 'Enter') {
        this.pin();
      } else return;
      event.preventDefault();
    }

    point(event) {
      const [wide, tall] = this.extent;
      const box = event.currentTarget.getBoundingClientRect();
      this.aim(Math.floor(((event.clientX - box.left) / box.width) * wide), Math.floor(((event.clientY - box.top) / box.height) * tall));
    }

    /** Mark the voxel at a column and a row of the picture. */
    aim(column, row) {
      const [wide, tall] = this.extent;
      if (column < 0 || row < 0 || column >= wide || row >= tall) return;
      const index = this.indexAt(column, row);
      if (index === this.cursor) return;
      this.cursor = index;
      this.draw();
      this.read();
    }

    draw() {
      this.layOut();
      this.slider.value = this.slice;
      const { series } = this;
      const through = this.axes[2];
      const number = series.origin[through] + series.step[through] * this.slice;
      // axial slices by their number, as in the pictures; others by their position
      const name = this.plane === 'axial' ? number : this.positionOf(this.indexAt(0, 0), through);
      this.sliceText.textContent = `${name} (${this.slice + 1} of ${this.last + 1})`;
      Object.assign(this.frame.dataset, { slice: number, plane: this.plane, way: this.neurological ? 'neurological' : 'radiological' });
      this.panes.forEach((pane) => this.drawPane(pane));
    }

    /** Position of a voxel along one axis of the patient, such as L 12. */
    positionOf(index, axis) {
      const at = this.series.millimetres(index)[axis];
      return `${'RAS LPI'[axis + (at < 0 ? 4 : 0)]} ${Math.abs(at).toFixed(0)} mm`;
    }

    drawPane(pane) {
      const { series } = this;
      const map = series.map(pane.name);
      const [wide, tall] = this.extent;
      const sizes = this.axes.map((axis) => series.size[axis]);
      const ratio = (tall * sizes[1]) / (wide * sizes[0]);
      const dense = window.devicePixelRatio || 1;
      pane.canvas.style.aspectRatio = String(1 / ratio);
      const width = Math.max(1, Math.round(pane.canvas.clientWidth * dense));
      pane.canvas.width = width;
      pane.canvas.height = Math.round(width * ratio);
      const [low, high] = this.windows[map.family];
      [pane.low.value, pane.high.value] = [low, high];
      pane.unit.textContent = map.unit;
      pane.canvas.ariaLabel = `${map.label}, ${this.plane} slice ${this.sliceText.textContent}`;
      this.drawBar(pane, map);
      const context = pane.canvas.getContext('2d');
      context.imageSmoothingEnabled = false;
      [this.offscreen.width, this.offscreen.height] = [wide, tall];
      this.offscreen.getContext('2d').putImageData(this.paint(map, low, high), 0, 0);
      context.drawImage(this.offscreen, 0, 0, pane.canvas.width, pane.canvas.height);
      for (const overlay of series.overlays) {
        if (overlay.style !== 'fill' && this.shown.has(overlay.name)) this.outline(context, overlay, dense);
      }
      if (this.crosshair) this.cross(context, this.cursor, dense);
      this.mark(context, this.cursor, '#ffffff', dense);
      for (const [place, { colour }] of Object.entries(PLACES)) {
        this.mark(context, place === 'voxel' ? this.pinned : this.homologueOf(this.pinned), colour, dense, place === 'homologue');
      }
      this.mark(context, this.homologueOf(this.cursor), '#ffffff', dense, true);
      this.letter(context, dense);
      this.scaleBar(context, sizes[0] * wide, dense);
    }

    coloursOf(map) {
      return this.series.colours[this.rainbow && map.family !== 'reference' ? RAINBOW : map.colours];
    }

    paint(map, low, high) {
      const { series } = this;
      const [wide, tall] = this.extent;
      const colours = this.coloursOf(map);
      const fills = series.overlays.filter((overlay) => overlay.style === 'fill' && this.shown.has(overlay.name));
      const tints = fills.map(({ colour }) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
      const picture = new ImageData(wide, tall);
      for (let row = 0, at = 0; row < tall; row += 1) {
        for (let column = 0; column < wide; column += 1, at += 4) {
          const index = this.indexAt(column, row);
          const level = (series.value(map, index) - low) / (high - low);
          const first = 3 * Math.round(255 * Math.min(Math.max(level, 0), 1));
          const none = series.has('brain_mask', index) ? NO_VALUE : 0;
          for (let part = 0; part < 3; part += 1) picture.data[at + part] = map.codes[index] ? colours[first + part] : none;
          picture.data[at + 3] = 255;
          fills.forEach((overlay, number) => {
            if (!series.covers(overlay.name, index)) return;
            for (let part = 0; part < 3; part += 1) {
              picture.data[at + part] = 0.35 * picture.data[at + part] + 0.65 * tints[number][part];
            }
          });
        }
      }
      return picture;
    }

    outline(context, overlay, dense) {
      const [columns, rows] = this.extent;
      const [wide, tall] = [context.canvas.width / columns, context.canvas.height / rows];
      const inside = (column, row) => column >= 0 && row >= 0 && column < columns && row < rows
        && this.series.covers(overlay.name, this.indexAt(column, row));
      context.beginPath();
      for (let row = 0; row < rows; row += 1) {
        for (let column = 0; column < columns; column += 1) {
          if (!inside(column, row)) continue;
          const [x, y] = [column * wide, row * tall];
          const edge = (x0, y0, x1, y1) => { context.moveTo(x0, y0); context.lineTo(x1, y1); };
          if (!inside(column - 1, row)) edge(x, y, x, y + tall);
          if (!inside(column + 1, row)) edge(x + wide, y, x + wide, y + tall);
          if (!inside(column, row - 1)) edge(x, y, x + wide, y);
          if (!inside(column, row + 1)) edge(x, y + tall, x + wide, y + tall);
        }
      }
      context.setLineDash(overlay.style === 'dashed' ? [wide / 2, wide / 2] : []);
      // with a black rim, so that it is visible on a map of a similar colour
      for (const [colour, width] of [['#000000', 2.8], [overlay.colour, 1.6]]) {
        [context.strokeStyle, context.lineWidth] = [colour, width * dense];
        context.stroke();
      }
      context.setLineDash([]);
    }

    homologueOf(index) {
      return index >= 0 ? this.series.homologue(index) : -1;
    }

    /** A square around a voxel; dashed for a homologue, which may lie in another slice: then smaller. */
    mark(context, index, colour, dense, dashed = false) {
      if (index < 0) return;
      const [columns, rows] = this.extent;
      const [column, row, slice] = this.onScreen(index);
      if (slice !== this.slice && !dashed) return;
      const [wide, tall] = [context.canvas.width / columns, context.canvas.height / rows];
      const grown = (slice === this.slice ? 2 : 0) * dense;
      const box = [column * wide - grown, row * tall - grown, wide + 2 * grown, tall + 2 * grown];
      for (const [stroke, width] of [['#000000', 3], [colour, 1.5]]) {
        context.setLineDash(dashed && width < 2 ? [3 * dense, 2 * dense] : []);
        context.strokeStyle = stroke;
        context.lineWidth = width * dense;
        context.strokeRect(...box);
      }
      context.setLineDash([]);
    }

    /** Lines through a voxel, with a gap around it. */
    cross(context, index, dense) {
      if (index < 0) return;
      const { width, height } = context.canvas;
      const [columns, rows] = this.extent;
      const [column, row] = this.onScreen(index);
      const [x, y] = [((column + 0.5) * width) / columns, ((row + 0.5) * height) / rows];
      const gap = 10 * dense;
      context.beginPath();
      for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) {
        if (x1 < x0 || y1 < y0) continue;
        context.moveTo(x0, y0);
        context.lineTo(x1, y1);
      }
      [context.strokeStyle, context.lineWidth] = ['rgba(255, 255, 255, 0.6)', dense];
      context.stroke();
    }

    /** Write white text with a black rim, which is also legible on bone. */
    write(context, text, x, y, align, baseline, size, dense) {
      context.font = `${size * dense}px sans-serif`;
      [context.fillStyle, context.strokeStyle, context.lineWidth] = ['#ffffff', '#000000', 3 * dense];
      [context.textAlign, context.textBaseline] = [align, baseline];
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    }

    letter(context, dense) {
      const { width, height } = context.canvas;
      const [first, second, top, bottom] = PLANES[this.plane].letters;
      // the letters are those of reversed columns
      const [left, right] = this.reversed ? [first, second] : [second, first];
      this.write(context, left, 5 * dense, height / 2, 'left', 'middle', 14, dense);
      this.write(context, right, width - 5 * dense, height / 2, 'right', 'middle', 14, dense);
      this.write(context, top, width / 2, 3 * dense, 'center', 'top', 14, dense);
      this.write(context, bottom, width / 2, height - 3 * dense, 'center', 'bottom', 14, dense);
      this.frame.dataset.letters = [left, right, top, bottom].join('');
    }

    /** Draw a scale bar, as long as is sensible for a picture of this width (mm). */
    scaleBar(context, widthMm, dense) {
      const { width, height } = context.canvas;
      const length = SCALE_BARS_MM.find((bar) => bar < widthMm / 2.5);
      if (!length) return;
      const [right, y] = [width - 8 * dense, height - 8 * dense];
      const left = right - (length / widthMm) * width;
      for (const [colour, thick] of [['#000000', 5], ['#ffffff', 2.5]]) {
        context.beginPath();
        context.moveTo(left, y);
        context.lineTo(right, y);
        [context.strokeStyle, context.lineWidth] = [colour, thick * dense];
        context.stroke();
      }
      this.write(context, `${length} mm`, (left + right) / 2, y - 4 * dense, 'center', 'bottom', 11, dense);
      this.frame.dataset.bar = length;
    }

    drawBar(pane, map) {
      const colours = this.coloursOf(map);
      const picture = new ImageData(256, 1);
      for (let level = 0; level < 256; level += 1) {
        for (let part = 0; part < 3; part += 1) picture.data[4 * level + part] = colours[3 * level + part];
        picture.data[4 * level + 3] = 255;
      }
      pane.bar.getContext('2d').putImageData(picture, 0, 0);
    }

    /** Write the values of the voxel under the pointer and of its homologue. */
    read() {
      const { series } = this;
      for (const place of Object.keys(PLACES)) {
        const index = place === 'voxel' ? this.cursor : this.homologueOf(this.cursor);
        const cell = (what) => this.table.querySelector(`[data-of="${place}"][data-what="${what}"]`);
        for (const map of series.maps) {
          if (!cell(map.name)) continue;
          const value = index < 0 ? NaN : series.value(map, index);
          cell(map.name).textContent = written(value);
          cell(map.name).dataset.value = value;
        }
        const inside = index < 0 ? [] : series.overlays
          .filter(({ name }) => !name.startsWith('mismatch') && series.has(name, index)).map(({ label }) => label.toLowerCase());
        const side = index < 0 ? '' : ['left', 'right'].find((hemisphere) => series.has(hemisphere, index)) ?? '';
        cell('inside').textContent = [side, ...inside].filter(Boolean).join(', ') || '–';
        cell('position').textContent = index < 0 ? '–' : series.millimetres(index)
          .map((at, axis) => `${'RAS LPI'[axis + (at < 0 ? 4 : 0)]} ${Math.abs(at).toFixed(0)}`).join(', ');
        cell('files').textContent = index < 0 ? '–' : series.inFiles(index).join(', ');
      }
    }

    /** Announce the values of the shown maps to screen readers. */
    announce() {
      const value = (map, index) => (index < 0 ? '–' : `${written(this.series.value(map, index))} ${map.unit}`);
      this.spoken.textContent = [`${this.plane} slice ${this.sliceText.textContent}`, ...this.panes.map(({ name }) => {
        const map = this.series.map(name);
        return `${map.label} ${value(map, this.cursor)}, homologue ${value(map, this.homologueOf(this.cursor))}`;
      })].join('; ');
    }

    /** Keep the voxel under the pointer and draw its curve and that of its homologue. */
    async pin() {
      if (this.cursor < 0 || !this.series.curves) return;
      this.pinned = this.cursor;
      this.draw();
      const traces = [];
      let highest = 0;
      for (const [place, { title, colour }] of Object.entries(PLACES)) {
        const index = place === 'voxel' ? this.pinned : this.homologueOf(this.pinned);
        const curve = index < 0 ? null : this.series.curve(index);
        if (!curve) continue;
        highest = Math.max(highest, ...curve.heights);
        traces.push({
          x: curve.times, y: curve.heights, name: title, mode: 'lines+markers',
          line: { color: colour, dash: place === 'voxel' ? 'solid' : 'dash' }, marker: { size: 4 },
        });
      }
      const missing = Object.keys(PLACES).length - traces.length;
      const { time, aif } = this.series.vessels;
      if (time && aif && traces.length) {
        const factor = Number((highest / Math.max(...aif)).toPrecision(2));
        traces.push({ x: time, y: aif.map((height) => height && height * factor), name: `AIF × ${factor}`, mode: 'lines', line: { color: '#777777', width: 1 } });
      }
      const { scale, kept } = this.series.curves;
      this.note.textContent = [
        missing ? 'A missing curve means that the voxel is CSF or vessel, or has no homologue.' : '',
        `Curves as deconvolved, above baseline, from ${scale.length} temporal components`
          + (kept < 0.9995 ? ` with ${(100 * kept).toFixed(1)} % of their variance.` : '.'),
      ].filter(Boolean).join(' ');
      this.plot.hidden = !traces.length;
      this.frame.dataset.curves = 0;
      if (!traces.length) return;
      const drawn = await loadPlotly();
      await drawn.react(this.plot, traces, {
        height: 250, margin: { l: 45, r: 8, t: 8, b: 38 }, font: { size: 11 }, legend: { orientation: 'h', y: 1.12 },
        xaxis: { title: { text: 'Time (s)' } }, yaxis: { title: { text: 'Enhancement (HU)' } }, hovermode: 'x unified',
      }, { displayModeBar: false, responsive: true });
      this.frame.dataset.curves = traces.length;
    }
  }

  async function open(figure) {
    const view = figure.querySelector('.view');
    try {
      const series = await Series.unpack(JSON.parse(figure.querySelector('script').textContent));
      view.hidden = false;
      view.viewer = new Viewer(view, series);
      view.dataset.ready = 'true';
    } catch (error) {
      const problem = figure.querySelector('.problem');
      view.hidden = true;
      problem.hidden = false;
      problem.textContent = `The viewer could not start (${error.message}). All slices are in the pictures below.`;
    }
  }

  // a page may contain many series: unpack each when it is about to be visible
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      open(target);
    }
  }, { rootMargin: '600px' });
  document.querySelectorAll('figure.viewer').forEach((figure) => near.observe(figure));
})();
