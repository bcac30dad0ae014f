'use strict';
// Draws the treemap and answers the controls. Titles come in as text nodes
// only, never as markup.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const SVG = 'http://www.w3.org/2000/svg';
  const number = new Intl.NumberFormat('en');
  const root = data.tree;
  const map = document.getElementById('map');
  const panel = document.getElementById('node');
  const path = document.getElementById('path');
  let trail = [root];

  function element(name, attributes, parent) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(made);
    return made;
  }

  function html(name, text, parent) {
    const made = document.createElement(name);
    made.textContent = text;
    parent.appendChild(made);
    return made;
  }

  // Squarified treemap: rows of nodes, each as square as the next one allows.
  function layout(nodes, x, y, width, height) {
    // 'others' would push the rest into a corner: they get a third at most.
    const named = nodes.reduce((sum, node) =>
      'nodes' in node ? sum : sum + node.documents, 0);
    const size = (node) => 'nodes' in node
      ? Math.min(node.documents, named / 2) : node.documents;
    const total = nodes.reduce((sum, node) => sum + size(node), 0);
    const scale = (width * height) / total;
    const sorted = [...nodes].sort((a, b) =>
      ('nodes' in a) - ('nodes' in b) || b.documents - a.documents);
    const places = [];
    let row = [], area = 0, largest = 0, smallest = Infinity;
    const worst = (sum, most, least, side) => Math.max(
      (side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
    const close = () => {
      const across = width >= height;
      const side = across ? height : width;
      const thick = area / side;
      let at = across ? y : x;
      for (const [node, part] of row) {
        const length = part / thick;
        places.push(across ? [node, x, at, thick, length]
          : [node, at, y, length, thick]);
        at += length;
      }
      if (across) { x += thick; width -= thick; }
      else { y += thick; height -= thick; }
      row = []; area = 0; largest = 0; smallest = Infinity;
    };
    for (const node of sorted) {
      const part = size(node) * scale;
      const side = Math.min(width, height);
      if (row.length && worst(area, largest, smallest, side) <
          worst(area + part, Math.max(largest, part),
            Math.min(smallest, part), side)) close();
      row.push([node, part]);
      area += part;
      largest = Math.max(largest, part);
      smallest = Math.min(smallest, part);
    }
    if (row.length) close();
    return places;
  }

  function shade(node) {
    if ('nodes' in node) return 'rest';
    const unique = node.ids / node.documents;
    return unique >= 0.9 ? 't0' : unique >= 0.5 ? 't1'
      : unique >= 0.1 ? 't2' : 't3';
  }

  const counted = (count, one, many) =>
    `${number.format(count)} ${count === 1 ? one : many}`;

  function describe(node) {
    const name = node === root && !node.codes ? 'all' : node.codes;
    return `${name}: ${counted(node.documents, 'document', 'documents')}`;
  }

  function show(node) {
    panel.replaceChildren();
    html('h3', node === root && !node.codes ? 'All documents' : node.codes, panel);
    const share = (100 * node.documents / data.documents).toPrecision(3);
    const documents = counted(node.documents, 'document', 'documents');
    const ids = 'ids' in node ? `, ${counted(node.ids, 'ID', 'IDs')}` : '';
    html('p', `${documents} (${share} %)${ids}`, panel).className = 'small';
    if (node.samples.length) {
      const list = html('ul', '', panel);
      for (const title of node.samples) html('li', title, list);
    }
    if (!node.children && 'ids' in node && node.ids > 1) {
      html('p', 'What is below is not on this page.', panel).className = 'small';
    }
  }

  function label(node, parent, x, y, width, height, dark) {
    // The codes after the node that is open: one, or several that all of its
    // documents share.
    const above = trail[trail.length - 1].codes;
    const codes = 'nodes' in node || node.codes === above ? node.codes
      : node.codes.slice(above ? above.length + 1 : 0);
    const fits = (text) => width >= 8 * text.length + 6 && height >= 17;
    const shown = [codes, `${codes.split('-')[0]}…`, codes.split('-')[0]]
      .find(fits);
    if (!shown) return;
    const text = element('text', {x: x + 5, y: y + 14}, parent);
    if (dark) text.setAttribute('class', 'onto');
    text.textContent = shown;
  }

  function tile(svg, node, x, y, width, height) {
    const group = element('g', {
      tabindex: 0, role: node.children ? 'button' : 'img',
      class: node.children ? 'open' : '', 'aria-label': describe(node),
    }, svg);
    element('title', {}, group).textContent = describe(node);
    element('rect', {x, y, width, height, class: shade(node)}, group);
    const named = height > 34 && width > 30;
    const top = named ? 19 : 1;
    if (node.children && width > 14 && height > top + 12) {
      for (const [child, a, b, w, h] of layout(
        node.children, x + 2, y + top, width - 4, height - top - 2)) {
        if (w > 1.5 && h > 1.5) element('rect', {x: a, y: b, width: w,
          height: h, class: `inner ${shade(child)}`}, group);
      }
      if (named) label(node, group, x, y, width, height, shade(node) === 't3');
    } else {
      label(node, group, x, y, width, height, shade(node) === 't3');
    }
    element('rect', {x, y, width, height, class: 'frame'}, group);
    group.addEventListener('pointerenter', () => show(node));
    group.addEventListener('focus', () => show(node));
    if (!node.children) return;
    const open = () => { trail.push(node); draw(true); };
    group.addEventListener('click', open);
    group.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' || event.key === ' ') {
        event.preventDefault();
        open();
      }
    });
  }

  function climb(depth) {
    trail = trail.slice(0, depth);
    draw(true);
  }

  function draw(focus) {
    const node = trail[trail.length - 1];
    path.replaceChildren();
    trail.forEach((step, depth) => {
      const name = depth ? step.codes : step.codes || 'all documents';
      const button = html('button', name, path);
      button.type = 'button';
      button.disabled = step === node;
      button.addEventListener('click', () => climb(depth + 1));
    });
    const width = map.clientWidth;
    const height = Math.round(Math.min(Math.max(width * 0.62, 300), 520));
    const svg = element('svg', {width, height, role: 'group',
      'aria-label': `Prefixes below ${describe(node)}`});
    const nodes = node.children || [node];
    for (const place of layout(nodes, 0, 0, width, height)) tile(svg, ...place);
    map.replaceChildren(svg);
    show(node);
    // Where the chosen tile is gone the keyboard goes on from the first.
    if (focus && svg.firstChild) svg.firstChild.focus({preventScroll: true});
    if (focus) show(node);
  }

  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && trail.length > 1) climb(trail.length - 1);
  });
  map.addEventListener('pointerleave', () => show(trail[trail.length - 1]));
  let waiting = 0;
  window.addEventListener('resize', () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => draw(false));
  });
  draw(false);

  const choice = document.querySelector('.choice');
  choice.hidden = false;
  choice.addEventListener('change', (event) => {
    for (const shown of document.querySelectorAll('.panel')) {
      shown.hidden = shown.dataset.length !== event.target.value;
    }
  });

  const sort = document.getElementById('sort');
  sort.closest('label').hidden = false;
  sort.addEventListener('change', () =>
    document.body.classList.toggle('by-use-first', sort.checked));

  const tip = document.getElementById('tip');
  document.querySelectorAll('.position').forEach((block) => {
    const position = Number(block.dataset.position);
    const {cells, together} = data.strips[position];
    const order = cells.map((_, cell) => cell)
      .sort((a, b) => cells[b] - cells[a]);
    const strip = block.querySelector('.strip');
    strip.addEventListener('pointermove', (event) => {
      const box = strip.getBoundingClientRect();
      const at = Math.floor((event.clientX - box.left) / box.width * cells.length);
      const place = Math.min(Math.max(at, 0), cells.length - 1);
      const cell = sort.checked ? order[place] : place;
      const first = cell * together;
      const name = together > 1 ? `codes ${first} to ${first + together - 1}, each`
        : `code ${first}`;
      tip.textContent = `${name}: ${number.format(cells[cell])} documents`;
      tip.hidden = false;
      tip.style.left =
        `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY + 16}px`;
    });
    strip.addEventListener('pointerleave', () => { tip.hidden = true; });
  });
})();
