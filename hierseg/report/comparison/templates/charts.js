// The height of a line above a place, null beyond its ends; of several, the first.
function heightAt(points, x) {
  for (let index = 1; index < points.length; index += 1) {
    const [[left, from], [right, to]] = [points[index - 1], points[index]];
    if (left === right || x < Math.min(left, right) || x > Math.max(left, right)) continue;
    return from + ((x - left) / (right - left)) * (to - from);
  }
  return null;
}

// Reads the lines of a chart where the pointer is.
function readable(figure) {
  const svg = figure.querySelector('svg');
  const [x0, x1, xLow, xHigh] = figure.dataset.x.split(' ').map(Number);
  const [y0, y1, yLow, yHigh] = figure.dataset.y.split(' ').map(Number);
  const lines = [...svg.querySelectorAll('polyline')].map((line) => ({
    name: line.dataset.name,
    color: line.classList[0],
    points: line.getAttribute('points').split(' ').map((point) => point.split(',').map(Number)),
  }));
  const cursor = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  const readout = document.createElement('div');
  cursor.setAttribute('class', 'cursor');
  readout.className = 'readout';
  readout.hidden = true;
  svg.append(cursor);
  figure.append(readout);

  const text = (value) => Number(value.toPrecision(3)).toLocaleString('en');
  const value = (y) => yLow + ((y - y0) / (y1 - y0)) * (yHigh - yLow);

  function show(event) {
    const box = svg.getBoundingClientRect();
    const x = Math.min(Math.max(((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width, x0), x1);
    const at = document.createElement('div');
    at.textContent = text(xLow + ((x - x0) / (x1 - x0)) * (xHigh - xLow));
    readout.replaceChildren(at);
    for (const line of lines) {
      const y = heightAt(line.points, x);
      if (y === null) continue;
      const row = document.createElement('div');
      const figures = document.createElement('b');
      figures.className = line.color;
      figures.textContent = text(value(y));
      row.append(figures, ` ${line.name}`);
      readout.append(row);
    }
    cursor.setAttribute('d', `M${x} ${y0}V${y1}`);
    readout.hidden = false;
    const outer = figure.getBoundingClientRect();
    const left = event.clientX - outer.left + 12;
    readout.style.left = `${Math.max(0, Math.min(left, outer.width - readout.offsetWidth))}px`;
    readout.style.top = `${box.top - outer.top + box.height * 0.45}px`;
  }

  function hide() {
    readout.hidden = true;
    cursor.removeAttribute('d');
  }

  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
