// The pictures: filters, and a larger view that steps through the panels of an image.
function gallery(start) {
  const tools = document.getElementById('picture-tools');
  const articles = [...document.querySelectorAll('#gallery article')];

  function update() {
    const value = (name) => tools.elements[name]?.value ?? '';
    for (const article of articles) {
      const { classes, errors, leaders } = article.dataset;
      article.hidden = !(
        (!value('class') || classes.includes(` ${value('class')} `)) &&
        (!value('error') || errors.includes(`|${value('error')}|`)) &&
        (!value('better') || leaders.includes(` ${value('better')} `))
      );
    }
    const shown = articles.filter((article) => !article.hidden).length;
    tools.querySelector('output').textContent = `${shown} of ${articles.length} images`;
    document.getElementById('no-pictures').hidden = shown > 0;
    document.documentElement.dataset.pictures = shown;
  }

  tools.hidden = false;
  tools.addEventListener('input', update);
  setValues(tools, start, ['class', 'error', 'better']);
  update();
}

function viewer() {
  const dialog = document.getElementById('viewer');
  const large = dialog.querySelector('img');
  let panels = [];
  let current = 0;

  function show(index) {
    current = (index + panels.length) % panels.length;
    const image = panels[current];
    large.src = image.src;
    large.alt = image.alt;
    dialog.querySelector('.caption').textContent = image.alt.split(':')[0];
  }

  for (const image of document.querySelectorAll('.panels img')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'zoom';
    button.setAttribute('aria-label', `Enlarge: ${image.alt}`);
    image.replaceWith(button);
    button.append(image);
    button.addEventListener('click', () => {
      panels = [...button.closest('.panels').querySelectorAll('img')];
      show(panels.indexOf(image));
      dialog.showModal();
    });
  }
  dialog.addEventListener('click', (event) => {
    const step = event.target.dataset?.step;
    if (step) show(current + Number(step));
    else if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowLeft') show(current - 1);
    if (event.key === 'ArrowRight') show(current + 1);
  });
}
