// SPDX-License-Identifier: Apache-2.0
// Plots of the page Against follow-up.
'use strict';
(() => {
  document.documentElement.classList.add('scripts');
  const content = JSON.parse(document.getElementById('followups').textContent);
  // plotly interprets some tags in text: escape names of series and groups
  const plain = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
  const config = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']] };
  const colours = { 'rcbf global': '#0072b2', 'rcbf local': '#d55e00', tmax: '#009e73' };
  const palette = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00'];
  const names = { 'rcbf global': 'global', 'rcbf local': 'local', tmax: 'Tmax' };
  const { soft } = content;

  function layout(x, y, more = {}) {
    const axis = { gridcolor: '#e6eaed', zerolinecolor: '#c3cbd1', automargin: true };
    return {
      font: { family: 'system-ui, sans-serif', size: 13, color: '#1c2429' },
      margin: { l: 60, r: 15, t: 50, b: 50 }, hovermode: 'closest', plot_bgcolor: '#fff',
      legend: { orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom' },
      xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } }, ...more,
    };
  }

  const upright = (x, dash) => ({ type: 'line', x0: x, x1: x, yref: 'paper', y0: 0, y1: 1, line: { color: soft, width: 1, dash } });

  function band(map, [thresholds, values, low, high], scale) {
    const x = thresholds.map((level) => scale * level);
    const curve = { type: 'scatter', mode: 'lines', name: names[map], x, y: values, line: { color: colours[map], width: 2 } };
    if (!low.every((limit) => limit !== null)) return [curve];
    const area = { type: 'scatter', x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], fill: 'toself', mode: 'none',
      fillcolor: `${colours[map]}33`, hoverinfo: 'skip', showlegend: false };
    return [area, curve];
  }

  function drawCurves(set) {
    const curves = content.curves[set] || {};
    content.figures.forEach(([figure, words]) => {
      const id = `curve-${figure}`;
      if (!document.getElementById(id)) return;
      const maps = ['rcbf global', 'rcbf local'].filter((map) => (curves[map] || {})[figure]);
      const traces = maps.flatMap((map) => band(map, curves[map][figure], 100));
      Plotly.react(id, traces, layout('rCBF below, %', words, { shapes: [upright(30, 'dash'), upright(100 * content.anchor, 'dot')] }), config);
    });
    const slow = (curves.tmax || {}).dice;
    Plotly.react('curve-tmax', slow ? band('tmax', slow, 1) : [], layout('Tmax above, s', 'Dice coefficient of hypoperfusion', { shapes: [upright(6, 'dash')] }), config);
  }

  function drawRoc(set) {
    const curves = content.roc[set] || {};
    const traces = Object.keys(names).filter((map) => curves[map]).map((map) => ({
      type: 'scatter', mode: 'lines+markers', name: names[map], x: curves[map][0], y: curves[map][1], text: curves[map][2], marker: { size: 4 },
      line: { color: colours[map], width: 2 }, hovertemplate: 'threshold %{text}: sensitivity %{y:.2f}, false-positive rate %{x:.3f}<extra></extra>',
    }));
    traces.push({ type: 'scatter', mode: 'lines', name: 'chance', x: [0, 1], y: [0, 1], line: { color: soft, dash: 'dot' }, hoverinfo: 'skip' });
    Plotly.react('roc-brain', traces, layout('1 - specificity', 'sensitivity'), config);
  }

  function drawVolumes(set) {
    const { series, groups, group, followup, volumes, lines, members } = content.agreement;
    Object.keys(volumes).forEach((which) => {
      const chosen = (members[set] || []).filter((i) => volumes[which][i] !== null && followup[i] !== null);
      const mean = (i) => (volumes[which][i] + followup[i]) / 2;
      const span = [0, chosen.reduce((top, i) => Math.max(top, mean(i)), 1) * 1.04];
      const traces = groups.map((name, number) => {
        const own = chosen.filter((i) => group[i] === number);
        return { type: 'scatter', mode: 'markers', name: plain(name || 'not known'), x: own.map(mean), y: own.map((i) => volumes[which][i] - followup[i]),
          text: own.map((i) => plain(series[i])), marker: { color: palette[number % palette.length], size: 7, opacity: 0.7 },
          hovertemplate: '<b>%{text}</b><br>mean %{x:.1f} mL, difference %{y:.1f} mL<extra></extra>' };
      });
      ((lines[which] || {})[set] || []).forEach((height, i) => {
        if (height === null) return;
        traces.push({ type: 'scatter', mode: 'lines', x: span, y: [height, height], line: { color: soft, dash: i ? 'dash' : 'solid' }, hoverinfo: 'skip', showlegend: false });
      });
      Plotly.react(`agreement-${which}`, traces, layout('mean of core and follow-up, mL', `core ${which} - follow-up, mL`), config);
    });
  }

  function draw(set) {
    drawCurves(set);
    drawRoc(set);
    drawVolumes(set);
    document.querySelectorAll('button[data-set]').forEach((button) => button.setAttribute('aria-pressed', String(button.dataset.set === set)));
  }

  draw(content.sets[0]);
  document.querySelectorAll('button[data-set]').forEach((button) => button.addEventListener('click', () => draw(button.dataset.set)));
})();
