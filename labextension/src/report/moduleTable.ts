/** The modules of a finding as a tree that can be searched, filtered and walked by keyboard. */
import type { TranslationBundle } from '@jupyterlab/translation';
import { h } from '../dom';
import type { IFinding } from './format';
import { ModuleModel } from './modules';
import type { IModuleQuery, IModuleRow, State } from './modules';
import { bits, count, number, visible } from './text';
import { VirtualList } from './virtual';
import type { Wording } from './wording';

/** For what takes keys itself; else they would be commands to the notebook around it. */
const OWN_KEYS = { 'data-lm-suppress-shortcuts': 'true' };
/** As in the stylesheet. */
const ROW_HEIGHT = 22;
let tables = 0;

export class ModuleTable {
  constructor(
    finding: IFinding,
    private readonly _words: Wording
  ) {
    const trans = _words.trans;
    this._model = new ModuleModel(finding);
    this._states = stateWords(trans);
    this._list = new VirtualList(ROW_HEIGHT, index => this._makeRow(index), this._head());
    this._told = h('span', { class: 'nanhunt-ModuleTable-told', role: 'status' });
    this.node = h('div', { class: 'nanhunt-ModuleTable' }, this._tools(), this._list.node);
    const grid = this._list.node;
    grid.setAttribute('role', 'treegrid');
    grid.setAttribute('tabindex', '0');
    Object.entries(OWN_KEYS).forEach(([name, value]) => grid.setAttribute(name, value));
    grid.setAttribute('aria-label', trans.__('Modules'));
    grid.addEventListener('keydown', event => this._onKey(event));
    grid.addEventListener('click', event => this._onClick(event));
    this._update();
    const culprit = this._rows.findIndex(row => row.state === 'producer');
    this._activate(Math.max(0, culprit));
  }

  readonly node: HTMLElement;

  dispose(): void {
    this._list.dispose();
  }

  private _tools(): HTMLElement {
    const trans = this._words.trans;
    const search = h('input', {
      type: 'search',
      class: 'nanhunt-input',
      placeholder: trans.__('Search modules'),
      'aria-label': trans.__('Search modules by path or class')
    });
    search.addEventListener('input', () => this._ask({ search: search.value }));
    const only = h('input', { type: 'checkbox', ...OWN_KEYS });
    only.addEventListener('change', () => this._ask({ suspicious: only.checked }));
    const order = h(
      'select',
      { class: 'nanhunt-input', 'aria-label': trans.__('Order of the modules'), ...OWN_KEYS },
      h('option', { value: 'tree' }, trans.__('as a tree')),
      h('option', { value: 'calls' }, trans.__('in the order of their calls'))
    );
    order.addEventListener('change', () => {
      this._ask({ order: order.value === 'calls' ? 'calls' : 'tree' });
    });
    const filter = h('label', {}, only, ` ${trans.__('only suspicious')}`);
    return h('div', { class: 'nanhunt-ModuleTable-tools' }, search, filter, order, this._told);
  }

  private _head(): HTMLElement {
    const trans = this._words.trans;
    const names = [
      trans.__('module'),
      trans.__('state'),
      trans.__('class'),
      trans.__('dtype'),
      trans.__('values'),
      trans.__('|max|'),
      trans.__('to limit')
    ];
    const cells = names.map(name => h('span', { role: 'columnheader' }, name));
    return h(
      'div',
      { class: 'nanhunt-ModuleTable-head', role: 'row', 'aria-rowindex': 1 },
      ...cells
    );
  }

  private _ask(change: Partial<IModuleQuery>): void {
    this._query = { ...this._query, ...change };
    this._update();
    this._activate(0);
  }

  private _update(): void {
    this._rows = this._model.rows(this._query);
    this._list.node.setAttribute('aria-rowcount', String(this._rows.length + 1));
    this._list.reset(this._rows.length);
    const all = this._query.order === 'tree' ? this._model.size : this._model.calls;
    const [shown, of] = [count(this._rows.length), count(all)];
    this._told.textContent = this._words.trans.__('%1 of %2 shown', shown, of);
  }

  private _makeRow(index: number): HTMLElement {
    const row = this._rows[index]!;
    const output = row.frame?.output ?? null;
    const cells: (HTMLElement | string)[] = [
      this._name(row),
      this._states[row.state],
      visible(row.frame?.kind ?? '', 30),
      visible(output?.dtype ?? '', 20),
      output ? this._words.badCounts(output) : '',
      output ? number(output.absmax) : '',
      output ? bits(output.headroom) : ''
    ];
    const made = h(
      'div',
      {
        id: `${this._id}-${index}`,
        class: `nanhunt-ModuleTable-row nanhunt-state-${row.state}`,
        role: 'row',
        'aria-level': row.level,
        'aria-rowindex': index + 2,
        'aria-expanded': row.expanded === null ? null : String(row.expanded),
        'aria-selected': String(index === this._active),
        'data-index': index
      },
      ...cells.map(cell => h('span', { role: 'gridcell' }, cell))
    );
    return made;
  }

  private _name(row: IModuleRow): HTMLElement {
    const arrow = row.expanded === null ? '' : row.expanded ? '▾' : '▸';
    const call = row.frame ? this._words.call(row.frame.call) : '';
    const label = (visible(row.label, 80) || this._words.trans.__('(root)')) + call;
    const name = h(
      'span',
      { class: 'nanhunt-ModuleTable-name', title: visible(row.path, 200) },
      h('span', { class: 'nanhunt-ModuleTable-arrow', 'aria-hidden': 'true' }, arrow),
      label
    );
    name.style.paddingLeft = `${Math.min(row.level - 1, 20)}em`;
    return name;
  }

  private _activate(index: number): void {
    const old = this._list.row(this._active);
    old?.setAttribute('aria-selected', 'false');
    this._active = Math.max(0, Math.min(index, this._rows.length - 1));
    if (this._rows.length === 0) {
      this._list.node.removeAttribute('aria-activedescendant');
      return;
    }
    this._list.reveal(this._active);
    this._list.row(this._active)?.setAttribute('aria-selected', 'true');
    this._list.node.setAttribute('aria-activedescendant', `${this._id}-${this._active}`);
  }

  /** Whether rows can be folded: what a search or a filter finds stays in view. */
  private get _folds(): boolean {
    return !this._query.search && !this._query.suspicious;
  }

  private _toggle(index: number): void {
    const row = this._rows[index];
    if (row && row.expanded !== null && this._folds) {
      this._model.toggle(row.path);
      const top = this._list.node.scrollTop;
      this._update();
      this._list.node.scrollTop = top;
      this._activate(index);
    }
  }

  private _onClick(event: MouseEvent): void {
    const target = event.target instanceof Element ? event.target : null;
    const row = target?.closest<HTMLElement>('[data-index]');
    if (row) {
      const index = Number(row.dataset['index']);
      this._activate(index);
      if (target?.classList.contains('nanhunt-ModuleTable-arrow')) {
        this._toggle(index);
      }
    }
  }

  private _onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) {
      return;
    }
    const row = this._rows[this._active];
    const page = Math.max(1, Math.floor(this._list.node.clientHeight / ROW_HEIGHT) - 2);
    switch (event.key) {
      case 'ArrowDown':
        this._activate(this._active + 1);
        break;
      case 'ArrowUp':
        this._activate(this._active - 1);
        break;
      case 'PageDown':
        this._activate(this._active + page);
        break;
      case 'PageUp':
        this._activate(this._active - page);
        break;
      case 'Home':
        this._activate(0);
        break;
      case 'End':
        this._activate(this._rows.length - 1);
        break;
      case 'ArrowRight':
        if (row?.expanded === false) {
          this._toggle(this._active);
        } else if (row?.expanded === true) {
          this._activate(this._active + 1);
        }
        break;
      case 'ArrowLeft':
        if (row?.expanded === true && this._folds) {
          this._toggle(this._active);
        } else if (row) {
          this._activate(this._parent(this._active));
        }
        break;
      case 'Enter':
        this._toggle(this._active);
        break;
      default:
        return;
    }
    event.preventDefault();
  }

  private _parent(index: number): number {
    const level = this._rows[index]?.level ?? 1;
    for (let above = index - 1; above >= 0; above--) {
      if (this._rows[above]!.level < level) {
        return above;
      }
    }
    return index;
  }

  private readonly _id = `nanhunt-modules-${++tables}`;
  private readonly _model: ModuleModel;
  private readonly _list: VirtualList;
  private readonly _states: Readonly<Record<State, string>>;
  private readonly _told: HTMLElement;
  private _query: IModuleQuery = { order: 'tree', search: '', suspicious: false };
  private _rows: readonly IModuleRow[] = [];
  private _active = 0;
}

/** A sign and a word for every state; colour alone never carries meaning. */
function stateWords(trans: TranslationBundle): Readonly<Record<State, string>> {
  return {
    unseen: `· ${trans.__('not recorded')}`,
    clean: `✓ ${trans.__('clean')}`,
    near: `△ ${trans.__('near overflow')}`,
    complex_half: `◆ ${trans.__('ComplexHalf')}`,
    inf: `∞ ${trans.__('Inf')}`,
    nan: `✗ ${trans.__('NaN')}`,
    producer: `▶ ${trans.__('producer')}`
  };
}
