// A larger view that steps through the panels of an image.
const viewer = { panels: [], current: 0 };

function showPanel(index) {
  const dialog = document.getElementById('viewer');
  viewer.current = (index + viewer.panels.length) % viewer.panels.length;
  const shown = viewer.panels[viewer.current];
  const copy = shown.cloneNode(true);
  copy.querySelector('image')?.removeAttribute('id'); // stands once in the page
  dialog.querySelector('.stage').replaceChildren(copy);
  dialog.querySelector('.caption').textContent = shown.getAttribute('aria-label');
}

function zoomable(article) {
  for (const shot of article.querySelectorAll('.shot')) {
    const picture = shot.querySelector('svg');
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'zoom';
    button.setAttribute('aria-label', `Enlarge: ${picture.getAttribute('aria-label')}`);
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener('click', () => {
      viewer.panels = [...article.querySelectorAll('.shot svg')];
      showPanel(viewer.panels.indexOf(picture));
      document.getElementById('viewer').showModal();
    });
  }
}

function enlarged() {
  const dialog = document.getElementById('viewer');
  dialog.addEventListener('click', (event) => {
    const step = event.target.dataset?.step;
    if (step) showPanel(viewer.current + Number(step));
    else if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowLeft') showPanel(viewer.current - 1);
    if (event.key === 'ArrowRight') showPanel(viewer.current + 1);
  });
}
