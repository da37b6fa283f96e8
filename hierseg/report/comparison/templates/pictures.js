// The pictures: filters, pages, and the least score. What is not on the open page is text in a noscript element.
function gallery(start) {
  const tools = document.getElementById('picture-tools');
  const list = document.getElementById('gallery');
  const articles = [...list.querySelectorAll('article')];
  const pagers = [...document.querySelectorAll('.pager')];
  const names = JSON.parse(list.dataset.names);
  const each = Number(list.dataset.each);
  const value = (name) => tools.elements[name]?.value ?? '';
  const number = (count) => count.toLocaleString('en');
  const scores = new Map(articles.map((article) => [
    article,
    article.dataset.scores.split('|').map((part) => part.split(' ').filter(Boolean).map(Number)),
  ]));
  let fitting = articles;
  let page = 0;

  function fits({ dataset: { file, classes, errors, leaders } }) {
    return (
      file.toLowerCase().includes(value('file').trim().toLowerCase()) &&
      (!value('class') || classes.includes(` ${value('class')} `)) &&
      (!value('error') || errors.includes(`|${value('error')}|`)) &&
      (!value('better') || leaders.includes(` ${value('better')} `))
    );
  }

  function hideBelow(parts) {
    const least = Number(value('score'));
    for (const part of parts) part.toggleAttribute('hidden', Number(part.dataset.score) < least);
  }

  // Pictures as HTML, from the text of their noscript element, which the page itself wrote.
  function fill(article) {
    const waiting = article.querySelector('noscript');
    if (!waiting) return;
    waiting.insertAdjacentHTML('afterend', waiting.textContent);
    waiting.remove();
    zoomable(article);
    hideBelow(article.querySelectorAll('[data-score]'));
  }

  function turn(to) {
    const pages = Math.max(Math.ceil(fitting.length / each), 1);
    page = Math.min(Math.max(to, 0), pages - 1);
    const shown = new Set(fitting.slice(page * each, (page + 1) * each));
    shown.forEach(fill);
    for (const article of articles) article.hidden = !shown.has(article);
    for (const pager of pagers) {
      const select = pager.querySelector('select');
      if (select.length !== pages) {
        select.replaceChildren(...Array.from({ length: pages }, (_, index) => new Option(`${index + 1} of ${pages}`, index)));
      }
      select.value = page;
      pager.querySelector('[data-page="-1"]').disabled = page === 0;
      pager.querySelector('[data-page="1"]').disabled = page === pages - 1;
      pager.hidden = pages < 2;
    }
    document.documentElement.dataset.page = page + 1;
  }

  // What the least score leaves of the detections, on all images that fit the filters.
  function count() {
    const least = Number(value('score'));
    document.getElementById('least-score').textContent = (least / 100).toFixed(2);
    const texts = names.map((name, position) => {
      const all = fitting.flatMap((article) => scores.get(article)[position]);
      return `${name}: ${number(all.filter((score) => score >= least).length)} of ${number(all.length)} detections`;
    });
    const spans = [`${number(fitting.length)} of ${number(articles.length)} images`, ...texts].map((text) => {
      const span = document.createElement('span');
      span.textContent = text;
      return span;
    });
    document.getElementById('counts').replaceChildren(...spans);
  }

  function update() {
    fitting = articles.filter(fits);
    document.getElementById('no-pictures').hidden = fitting.length > 0;
    document.documentElement.dataset.pictures = fitting.length;
    turn(0);
    count();
  }

  list.classList.add('paged');
  tools.hidden = false;
  document.getElementById('counts').hidden = false;
  tools.addEventListener('input', (event) => {
    if (event.target.name !== 'score') return update();
    hideBelow(list.querySelectorAll('[data-score]'));
    return count();
  });
  tools.addEventListener('submit', (event) => event.preventDefault());
  for (const pager of pagers) {
    pager.addEventListener('click', (event) => {
      const step = Number(event.target.dataset.page);
      if (!step) return;
      turn(page + step);
      if (pager !== pagers[0]) document.getElementById('counts').scrollIntoView();
    });
    pager.querySelector('select').addEventListener('input', (event) => turn(Number(event.target.value)));
  }
  setValues(tools, start, ['file', 'class', 'error', 'better', 'score']);
  articles.forEach((article) => article.querySelector('.panels') && zoomable(article));
  hideBelow(list.querySelectorAll('[data-score]'));
  update();
  if (start.has('page')) turn(Number(start.get('page')) - 1 || 0);
}
