// What stands behind # sets the filters, such as #find=bear&order=ahead or #class=3&level=1: a link to a view.
function setValues(form, start, names) {
  for (const name of names) {
    const field = form.elements[name];
    if (!field || !start.has(name)) continue;
    const before = field.value;
    field.value = start.get(name);
    if (field.selectedIndex === -1) field.value = before; // no such choice
  }
}

function confusionLevels(start) {
  const tools = document.getElementById('level-tools');
  const update = () => {
    for (const entry of document.querySelectorAll('.confusions')) {
      entry.hidden = entry.dataset.level !== tools.elements.level.value;
    }
    document.documentElement.dataset.level = tools.elements.level.value;
  };
  tools.hidden = false;
  tools.addEventListener('input', update);
  setValues(tools, start, ['level']);
  update();
}

// One choice of classes at a time; without JavaScript all of them can be unfolded.
function curveChoice(start) {
  const tools = document.getElementById('curve-tools');
  const list = document.getElementById('curve-list');
  const curves = [...list.querySelectorAll('.curve')];
  const update = () => {
    for (const curve of curves) {
      const isChosen = curve.dataset.curve === tools.elements.curves.value;
      const waiting = curve.querySelector('noscript');
      if (isChosen && waiting) {
        waiting.insertAdjacentHTML('afterend', waiting.textContent);
        waiting.remove();
        curve.querySelectorAll('.chart[data-x]').forEach(readable);
      }
      curve.hidden = !isChosen;
      curve.open = isChosen;
    }
    document.documentElement.dataset.curves = tools.elements.curves.value;
  };
  list.classList.add('driven');
  tools.hidden = false;
  tools.addEventListener('input', update);
  setValues(tools, start, ['curves']);
  update();
}

(() => {
  const start = new URLSearchParams(location.hash.includes('=') ? location.hash.slice(1) : '');
  classList(start);
  document.querySelectorAll('.chart[data-x]').forEach(readable);
  if (document.getElementById('curve-tools')) curveChoice(start);
  if (document.getElementById('level-tools')) confusionLevels(start);
  if (document.getElementById('gallery')) {
    gallery(start);
    enlarged();
  }
  document.documentElement.dataset.state = 'ready';
})();
