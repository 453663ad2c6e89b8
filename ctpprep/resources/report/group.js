// SPDX-License-Identifier: Apache-2.0
// Plots of the group page, and its sortable and filterable table.
'use strict';
(() => {
  document.documentElement.classList.add('scripts');
  const cohort = JSON.parse(document.getElementById('cohort').textContent);
  // plotly interprets some tags in text: escape names of series and groups
  const plain = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
  const config = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']] };
  const { soft } = cohort;
  const mostLabelled = 3;

  function layout(x, y, more = {}) {
    const axis = { gridcolor: '#e6eaed', zerolinecolor: '#c3cbd1', automargin: true };
    return {
      font: { family: 'system-ui, sans-serif', size: 13, color: '#1c2429' },
      margin: { l: 60, r: 15, t: 75, b: 50 }, hovermode: 'closest', plot_bgcolor: '#fff',
      legend: { orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom' },
      xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } }, ...more,
    };
  }

  // columns of a row: series, link, group, stroke, then the volumes (null if missing) and the verdict
  const volumes = { 'core global': 4, 'core local': 5, hypoperfusion: 6, 'mismatch (global)': 7 };
  const verdictAt = 8;
  const isPaired = (row) => row[4] !== null && row[5] !== null;
  const labelOf = (row) => plain(row[verdictAt] ? `${row[0]} (${row[verdictAt]})` : row[0]);

  function seriesOf(set, group) {
    return cohort.series.filter((row) => row[2] === group && (set === 'all' || row[3]));
  }

  function points(series, group, x, y) {
    return {
      type: 'scatter', mode: 'markers', name: `${plain(cohort.groups[group])} (n = ${series.length})`,
      x, y, text: series.map((row) => plain(row[0])), hovertext: series.map(labelOf), customdata: series.map((row) => row[1]),
      marker: { color: cohort.colours[group], symbol: cohort.symbols[group], size: cohort.series.length > 500 ? 5 : 8, opacity: 0.65 },
      legendrank: group + 1,
    };
  }

  function line(group, name, x, y, dash, more = {}) {
    const color = group === null ? soft : cohort.colours[group];
    return { type: 'scatter', mode: 'lines', name, x, y, line: { color, dash, width: 2 }, hoverinfo: 'skip', showlegend: false, legendrank: 0, ...more };
  }

  function drawAgreement(set) {
    const scatter = [], agreement = [], shown = [];
    const all = cohort.series.filter((row) => isPaired(row) && (set === 'all' || row[3]));
    const most = all.reduce((top, row) => Math.max(top, row[4], row[5]), 1) * 1.04;
    const means = all.map((row) => (row[4] + row[5]) / 2);
    const span = [0, means.reduce((top, mean) => Math.max(top, mean), 1) * 1.04];
    scatter.push(line(null, 'identity', [0, most], [0, most], 'dot', { showlegend: true }));
    agreement.push(line(null, 'no difference', span, [0, 0], 'dot', { showlegend: true }));
    const parts = cohort.groups.map((title, group) => [title, group, seriesOf(set, group).filter(isPaired)]);
    // draw smaller groups last, above larger ones
    parts.sort((one, other) => other[2].length - one[2].length);
    parts.forEach(([title, group, series]) => {
      const x = series.map((row) => row[4]), y = series.map((row) => row[5]);
      scatter.push(points(series, group, x, y));
      agreement.push(points(series, group, x.map((value, i) => (value + y[i]) / 2), y.map((value, i) => value - x[i])));
      const [slope, intercept, mean, low, high] = (cohort.lines[set] || {})[title] || [];
      if (slope != null && intercept != null) {
        const ends = [Math.min(...x), Math.max(...x)];
        scatter.push(line(group, 'regression', ends, ends.map((end) => intercept + slope * end), 'solid'));
      }
      [[mean, 'solid', 'mean'], [low, 'dash', '-2 SD'], [high, 'dash', '+2 SD']].forEach(([height, dash, words]) => {
        if (height == null) return;
        agreement.push(line(group, words, span, [height, height], dash));
        // labels of more groups would overlap; the figures are under Statistics
        if (cohort.groups.length > mostLabelled) return;
        shown.push({ xref: 'paper', x: 1 - 0.2 * (group % 5), y: height, xanchor: 'right', yanchor: 'bottom', showarrow: false,
          text: `${words} ${height.toFixed(1)}`, font: { size: 11, color: cohort.colours[group] } });
      });
    });
    const ranges = { range: [-0.03 * most, most] };
    const square = layout('core global, mL', 'core local, mL');
    Object.assign(square.xaxis, ranges);
    Object.assign(square.yaxis, ranges);
    square.yaxis.scaleanchor = 'x';
    square.yaxis.constrain = square.xaxis.constrain = 'domain';
    const scatterTip = '<b>%{hovertext}</b><br>global %{x:.1f} mL, local %{y:.1f} mL<extra></extra>';
    const agreementTip = '<b>%{hovertext}</b><br>mean %{x:.1f} mL, local - global %{y:.1f} mL<extra></extra>';
    scatter.forEach((trace) => { if (trace.mode === 'markers') trace.hovertemplate = scatterTip; });
    agreement.forEach((trace) => { if (trace.mode === 'markers') trace.hovertemplate = agreementTip; });
    Plotly.react('scatter', scatter, square, config);
    Plotly.react('bland-altman', agreement, layout('mean of both cores, mL', 'local - global, mL', { annotations: shown }), config);
  }

  function drawBoxes(set) {
    const traces = [];
    cohort.groups.forEach((title, group) => {
      const series = seriesOf(set, group);
      const x = [], y = [], hovertext = [], customdata = [];
      Object.entries(volumes).forEach(([volume, at]) => series.filter((row) => row[at] !== null).forEach((row) => {
        x.push(volume); y.push(row[at]); hovertext.push(labelOf(row)); customdata.push(row[1]);
      }));
      traces.push({ type: 'box', name: `${plain(title)} (${series.length} series)`, x, y, hovertext, customdata, boxpoints: series.length > 200 ? 'outliers' : 'all',
        jitter: 0.5, pointpos: 0, boxmean: true, hovertemplate: '%{hovertext}: %{y:.1f} mL<extra></extra>',
        marker: { color: cohort.colours[group], symbol: cohort.symbols[group], size: 5, opacity: 0.6 }, line: { width: 1.5 } });
    });
    Plotly.react('boxes', traces, layout('', 'volume, mL', { boxmode: 'group' }), config);
  }

  // the next of 1, 2, 5, 10, 20, ...
  function roundStep(least) {
    const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= least);
  }

  function drawChecks() {
    const grades = [['passes', cohort.grades.pass, ''], ['warns', cohort.grades.warn, '/'], ['fails', cohort.grades.fail, 'x']];
    // checks that every series passed to which they apply are counted, not drawn
    const graded = cohort.checks.filter((check) => check[1] + check[2] + check[3] > 0);
    const checks = graded.filter((check) => check[2] + check[3] > 0);
    const passed = graded.length - checks.length;
    document.getElementById('all-passed').textContent = !graded.length ? ''
      : `${passed} of ${graded.length} checks pass wherever they apply${checks.length ? '; the others:' : '.'}`;
    const titles = checks.map((check) => plain(check[0]));
    const plot = document.getElementById('checks');
    plot.hidden = !checks.length;
    if (plot.hidden) return;
    plot.style.height = `${140 + 20 * titles.length}px`;
    const traces = grades.map(([name, color, shape], i) => ({
      type: 'bar', orientation: 'h', name, y: titles, x: checks.map((check) => check[i + 1]),
      marker: { color, pattern: { shape, fgcolor: '#fff', size: 6, fillmode: 'overlay' } }, hovertemplate: `%{y} ${name} in %{x} series<extra></extra>`,
    }));
    const bars = layout('series', '', { barmode: 'stack', bargap: 0.25 });
    bars.legend.traceorder = 'normal';
    Object.assign(bars.xaxis, { tickformat: 'd', rangemode: 'tozero', minallowed: 0, dtick: roundStep(Math.max(...graded.map((check) => check[1] + check[2] + check[3])) / 8) });
    // on a narrow page titles need most of the width, and the legend the place of the buttons
    const isNarrow = plot.clientWidth < 500;
    if (isNarrow) Object.assign(bars, { font: { ...bars.font, size: 9 }, margin: { ...bars.margin, l: 20 } });
    Plotly.react(plot, traces, bars, { ...config, displayModeBar: !isNarrow });
  }

  function draw(set) {
    drawAgreement(set);
    drawBoxes(set);
    document.querySelectorAll('button[data-set]').forEach((button) => button.setAttribute('aria-pressed', String(button.dataset.set === set)));
  }

  draw('all');
  drawChecks();
  document.querySelectorAll('button[data-set]').forEach((button) => button.addEventListener('click', () => draw(button.dataset.set)));
  ['scatter', 'bland-altman', 'boxes'].forEach((id) => document.getElementById(id).on('plotly_click', (event) => {
    const page = event.points[0].customdata;
    if (page) window.location.href = page;
  }));

  // a plot has a fixed width in pixels: that of the paper while the page is printed
  const paper = 680;
  const plots = () => [...document.querySelectorAll('.js-plotly-plot')];
  window.addEventListener('beforeprint', () => plots().forEach((plot) => Plotly.relayout(plot, { width: paper, autosize: false })));
  window.addEventListener('afterprint', () => plots().forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true })));

  // the table
  const heads = [...document.querySelectorAll('#table thead th')];
  const body = document.querySelector('#table tbody');
  const columns = heads.map((head) => head.dataset.column);
  const titles = heads.map((head) => head.textContent.toLowerCase().replace(/, ml$/, ''));
  const numeric = new Set(['core_global', 'core_local', 'difference', 'hypoperfusion', 'mismatch_global', 'mismatch_local']);
  const rows = [...body.rows].map((element) => {
    const texts = [...element.cells].map((cell) => cell.textContent);
    const values = texts.map((text, i) => (!numeric.has(columns[i]) ? text : text === '' ? null : Number(text)));
    return { element, values, all: texts.join(' ').toLowerCase() };
  });
  const verdicts = ['usable', 'look first', 'do not use'];
  const names = new Intl.Collator('en', { numeric: true });

  function order(column, a, b) {
    if (columns[column] === 'verdict') return verdicts.indexOf(a) - verdicts.indexOf(b);
    return typeof a === 'number' ? a - b : names.compare(a, b);
  }

  function sort(column) {
    const direction = heads[column].getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    heads.forEach((head, i) => head.setAttribute('aria-sort', i !== column ? 'none' : direction > 0 ? 'ascending' : 'descending'));
    const empty = (value) => value === null || value === '';
    rows.sort((one, other) => {
      const a = one.values[column], b = other.values[column];
      // missing values are always last
      if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b));
      return direction * order(column, a, b);
    });
    body.append(...rows.map((row) => row.element));
  }

  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\-]/g, '\\$&');
  // values of text columns that contain blanks
  const phrases = columns.map((key, column) => (numeric.has(key) ? [] : [...new Set(rows.map((row) => row.values[column].toLowerCase()))]
    .filter((value) => /\s/.test(value)).slice(0, 50).sort((one, other) => other.length - one.length)));
  // column headings with any blanks, with or without unit; longest first, since one may be the end of another
  const spellings = titles.flatMap((title, column) => [[title, column], [columns[column], column]])
    .sort((one, other) => other[0].length - one[0].length)
    .map(([name, column]) => [name.split(/[\s_]+/).map(escaped).join('[\\s_]*'), column]);
  const anyHead = new RegExp(`(?:^|[\\s,])(?:${spellings.map(([name]) => name).join('|')})(?:,?\\s*ml)?\\s*[<>=≤≥]`);
  const compare = { '<': (a, b) => a < b, '>': (a, b) => a > b, '<=': (a, b) => a <= b, '>=': (a, b) => a >= b, '=': (a, b) => a === b };
  const signs = { '≤': '<=', '≥': '>=' };

  // split the text into conditions (as tests of a row) and the remaining words
  function conditions(text) {
    const tests = [];
    spellings.forEach(([name, column]) => {
      const value = numeric.has(columns[column]) ? '(-?\\d+(?:[.,]\\d+)?)(?:\\s*ml)?(?![\\w.])' : `("[^"]*"|${phrases[column].map((value) => `${escaped(value)}(?![^\\s,])|`).join('')}[^\\s,]+)`;
      const sign = numeric.has(columns[column]) ? '(<=|>=|[<>=≤≥])' : '(=)';
      const pattern = new RegExp(`(?:^|[\\s,])${name}(?:,?\\s*ml)?\\s*${sign}\\s*${value}(?:[\\s,]+and(?=\\s))?`, 'g');
      text = text.replace(pattern, (whole, how, limit) => {
        const is = compare[signs[how] || how];
        const wanted = numeric.has(columns[column]) ? Number(limit.replace(',', '.')) : limit.replace(/"/g, '');
        tests.push((row) => {
          const value = row.values[column];
          return value !== null && is(typeof value === 'string' ? value.toLowerCase() : value, wanted);
        });
        return ' ';
      });
    });
    return { tests, words: text.split(/[\s,]+/).filter(Boolean), open: anyHead.test(text) };
  }

  const selects = [...document.querySelectorAll('.filters select')];

  function filter() {
    const selections = selects.map((select) => [columns.indexOf(select.id.replace('only-', '')), select.value]).filter(([, value]) => value);
    const { tests, words, open } = conditions(document.getElementById('filter').value.trim().toLowerCase());
    // a comparison sign that occurs in no row was meant as a condition
    const unclear = open || words.some((word) => /[<>=≤≥]/.test(word) && !rows.some((row) => row.all.includes(word)));
    const requiredWords = unclear ? [] : words;
    let count = 0;
    rows.forEach((row) => {
      const shown = tests.every((test) => test(row)) && requiredWords.every((word) => row.all.includes(word))
        && selections.every(([column, value]) => (row.values[column] || 'none') === value);
      row.element.hidden = !shown;
      count += shown;
    });
    document.getElementById('count').textContent = `${count} of ${rows.length} series`;
    document.getElementById('filter-message').textContent = !unclear ? ''
      : `Not understood, and not used: ${words.join(' ')}. A condition is a head of the table, a sign and a value: core global > 70, local - global <= -5, stroke = yes.`;
  }

  heads.forEach((head) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute('aria-sort', 'none');
  });
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => sort(column)));
  [document.getElementById('filter'), ...selects].forEach((input) => input.addEventListener('input', filter));
  // a click on a count lists its series, and those alone
  document.querySelectorAll('a[data-verdict], a[data-state]').forEach((link) => link.addEventListener('click', () => {
    document.getElementById('filter').value = '';
    selects.forEach((select) => { select.value = link.dataset[select.id.replace('only-', '')] ?? ''; });
    filter();
  }));

  // one slice of a map, cut out of the picture of all its slices
  const slices = document.getElementById('locations-layout');
  if (slices) {
    const layout = JSON.parse(slices.textContent), zoom = 4;
    const pictures = [...document.querySelectorAll('#locations figure img')];
    const map = document.getElementById('location-map'), slice = document.getElementById('location-slice');
    const view = document.getElementById('location');
    view.style.width = `${layout.width * zoom}px`;
    view.style.height = `${layout.height * zoom}px`;
    view.style.backgroundSize = `${layout.columns * layout.width * zoom}px auto`;
    const show = () => {
      const index = Number(slice.value), column = index % layout.columns, row = Math.floor(index / layout.columns);
      view.style.backgroundImage = `url("${pictures[map.value].src}")`;
      view.style.backgroundPosition = `${-column * layout.width * zoom}px ${-row * layout.height * zoom}px`;
      document.getElementById('location-words').textContent = `z = ${layout.heights[index]} mm; ${layout.scales[map.value]}`;
    };
    [map, slice].forEach((input) => input.addEventListener('input', show));
    view.addEventListener('wheel', (event) => {
      event.preventDefault();
      slice.value = Number(slice.value) - Math.sign(event.deltaY);
      show();
    }, { passive: false });
    show();
  }
})();
