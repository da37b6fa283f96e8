// The list of classes: along the tree, or flat in another order; with a search.
function classList(start) {
  const tools = document.getElementById('class-tools');
  const tree = document.getElementById('tree');
  const list = tree.querySelector(':scope > ul');
  const more = document.getElementById('all-classes');
  const items = [...list.querySelectorAll('li[data-name]')];
  const opened = [...list.querySelectorAll('details')].map((details) => [details, details.open]);
  const AT_FIRST = 40;
  const flat = document.createElement('ul');
  let all = false;
  flat.className = 'flat';
  flat.hidden = true;
  list.after(flat);

  const number = (item, key, missing) => (key in item.dataset ? Number(item.dataset[key]) : missing);
  const orders = {
    ahead: (a, b) => number(b, 'difference', -9) - number(a, 'difference', -9),
    behind: (a, b) => number(a, 'difference', 9) - number(b, 'difference', 9),
    rare: (a, b) => number(a, 'train', 0) - number(b, 'train', 0),
    frequent: (a, b) => number(b, 'train', 0) - number(a, 'train', 0),
    objects: (a, b) => number(b, 'objects', 0) - number(a, 'objects', 0),
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
  };
  const idle = document.querySelector('[name="idle-classes"]');
  const counts = (item) => idle?.checked || !item.classList.contains('idle');
  const found = (item, text) => counts(item) && item.dataset.path.toLowerCase().includes(text);

  function flatItem(item) {
    const copy = document.createElement('li');
    copy.className = item.className;
    const row = item.firstElementChild.matches('.row') ? item.firstElementChild : item.querySelector('summary .row');
    copy.append(row.cloneNode(true));
    return copy;
  }

  function update() {
    const text = tools.elements.find.value.trim().toLowerCase();
    const order = tools.elements.order.value;
    const hits = items.filter((item) => found(item, text));
    const isTree = order === 'tree';
    list.hidden = !isTree;
    flat.hidden = isTree;
    if (isTree) {
      // Below a hit everything matches too, since the path contains it; above one, the way to it stays.
      items.forEach((item) => { item.hidden = Boolean(text) && !hits.includes(item) && !hits.some((hit) => item.contains(hit)); });
      opened.forEach(([details, open]) => { details.open = text ? true : open; });
    } else {
      flat.replaceChildren(...[...hits].sort(orders[order]).map(flatItem));
    }
    const shown = [...(isTree ? list : flat).children].filter((item) => !item.hidden);
    shown.forEach((item, index) => { item.classList.toggle('beyond', !all && index >= AT_FIRST); });
    more.hidden = all || shown.length <= AT_FIRST;
    more.textContent = `Show all ${shown.length}`;
    tools.querySelector('output').textContent = text ? `${hits.length} of ${items.filter(counts).length} classes` : '';
    document.documentElement.dataset.classes = hits.length;
  }

  tools.hidden = false;
  tools.addEventListener('input', update);
  tools.addEventListener('submit', (event) => event.preventDefault());
  idle?.addEventListener('input', update);
  more.addEventListener('click', () => { all = true; update(); });
  setValues(tools, start, ['find', 'order']);
  update();
}
