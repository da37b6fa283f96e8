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

(() => {
  const start = new URLSearchParams(location.hash.includes('=') ? location.hash.slice(1) : '');
  classList(start);
  document.querySelectorAll('.chart[data-x]').forEach(readable);
  if (document.getElementById('level-tools')) confusionLevels(start);
  if (document.getElementById('gallery')) {
    gallery(start);
    viewer();
  }
  document.documentElement.dataset.state = 'ready';
})();
