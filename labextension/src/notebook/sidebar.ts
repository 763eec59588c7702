/** The live hunt, findings and preflight facts of the current notebook. */
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { Title } from '@lumino/widgets';
import { button, h } from '../dom';
import type { Child } from '../dom';
import { Controls } from '../live/controls';
import type { Live } from '../live/live';
import type { IFinding, ISource } from '../report/format';
import { count, visible } from '../report/text';
import { reportKind, reportSign, sign } from '../report/wording';
import type { Wording } from '../report/wording';
import type { Current } from './current';
import type { IEntry, NotebookWatch } from './watch';

/** Reports of one notebook that are listed. */
const MOST_ENTRIES = 100;
/** Findings or facts of one report that are listed. */
const MOST_ITEMS = 50;

export interface ISidebarActions {
  /** Goes to a line of the program that ran in a notebook. */
  reveal(watch: NotebookWatch, source: ISource, finding: IFinding | null): void;
  /** Goes to the cell that put a report out. */
  revealReport(watch: NotebookWatch, entry: IEntry): void;
}

export class Sidebar extends Widget {
  constructor(
    private readonly _current: Current,
    live: Live,
    private readonly _words: Wording,
    private readonly _actions: ISidebarActions
  ) {
    super();
    this.id = 'nanhunt-sidebar';
    this.addClass('nanhunt-Sidebar');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _words.trans.__('nanhunt findings'));
    this.node.tabIndex = -1;
    this._controls = new Controls(live, _words.trans);
    // These stay, or a button pressed there would lose the focus with each news.
    this.node.append(this._title, this._controls.node, this._told, this._list);
    _current.changed.connect(this._onChange, this);
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._current.changed.disconnect(this._onChange, this);
      this._followed?.changed.disconnect(this._name, this);
      this._controls.dispose();
      super.dispose();
    }
  }

  protected override onBeforeShow(message: Message): void {
    super.onBeforeShow(message);
    this.update();
  }

  protected override onActivateRequest(): void {
    const buttons = [...this.node.querySelectorAll<HTMLElement>('button')];
    const first = buttons.find(made => !made.closest('[hidden]'));
    (first ?? this.node).focus();
  }

  protected override onUpdateRequest(): void {
    const watch = this._current.watch;
    this._follow(watch?.panel.title ?? null);
    const entries = watch?.entries ?? [];
    this._told.textContent = this._tell(watch);
    const shown = entries.slice(0, MOST_ENTRIES);
    const items = watch ? shown.map(entry => this._entry(watch, entry)) : [];
    const left = entries.length - shown.length;
    if (left > 0) {
      items.push(h('p', {}, this._words.trans.__('and %1 older ones', count(left))));
    }
    this._list.replaceChildren(...items);
  }

  /** A notebook may be renamed. */
  private _follow(title: Title<Widget> | null): void {
    if (title !== this._followed) {
      this._followed?.changed.disconnect(this._name, this);
      title?.changed.connect(this._name, this);
      this._followed = title;
    }
    this._name();
  }

  private _name(): void {
    this._title.textContent = this._followed?.label || this._words.trans.__('No notebook');
  }

  private _onChange(): void {
    if (this.isVisible) {
      this.update();
    }
  }

  private _tell(watch: NotebookWatch | null): string {
    const trans = this._words.trans;
    if (!watch) {
      return trans.__('Open a notebook to see what nanhunt found in it.');
    }
    if (watch.entries.length === 0) {
      return trans.__('No report in the outputs of this notebook. Run: %nanhunt model step_fn');
    }
    const all = watch.entries.length;
    return trans._n('%2 report', '%2 reports', all, count(all));
  }

  private _entry(watch: NotebookWatch, entry: IEntry): HTMLElement {
    const trans = this._words.trans;
    const { shown } = entry;
    const what = shown.kind === 'report' ? trans.__('hunt') : trans.__('preflight');
    const number = entry.count === null ? ' ' : String(entry.count);
    const caption = trans.__('%1 in cell [%2]', what, number);
    const head = button(caption, () => this._actions.revealReport(watch, entry), {
      class: 'nanhunt-link nanhunt-Sidebar-report',
      title: trans.__('Go to this output')
    });
    const items =
      shown.kind === 'report' ? this._findings(watch, entry) : this._facts(watch, entry);
    const list = h('ul', { 'aria-label': caption }, ...items);
    return h('section', { class: 'nanhunt-Sidebar-entry' }, head, list);
  }

  private _findings(watch: NotebookWatch, { shown }: IEntry): HTMLElement[] {
    if (shown.kind !== 'report') {
      return [];
    }
    const { report } = shown;
    const headline = this._words.headline(report);
    const whole = this._item(watch, reportKind(report), reportSign(report), headline, null);
    const told = report.findings.some(finding => this._words.verdict(finding) === headline);
    const findings = report.findings.slice(0, MOST_ITEMS).map(finding => {
      const kind = finding.severity === 'critical' ? 'critical' : 'warning';
      return this._item(
        watch,
        kind,
        sign(finding),
        this._words.verdict(finding),
        finding.source,
        finding
      );
    });
    return told ? findings : [whole, ...findings];
  }

  private _facts(watch: NotebookWatch, { shown }: IEntry): HTMLElement[] {
    if (shown.kind !== 'preflight') {
      return [];
    }
    return shown.preflight.facts.slice(0, MOST_ITEMS).map(fact => {
      const warning = fact.severity === 'warning';
      const [kind, glyph] = warning ? ['warning', '△'] : ['info', '·'];
      return this._item(watch, kind, glyph, visible(fact.text, 300), fact.source);
    });
  }

  /** A line that leads to its source, where it has one. */
  private _item(
    watch: NotebookWatch,
    kind: string,
    glyph: string,
    text: string,
    source: ISource | null,
    finding: IFinding | null = null
  ): HTMLElement {
    const sign = h('span', { 'aria-hidden': 'true', class: 'nanhunt-Sidebar-glyph' }, glyph);
    const words = h('span', {}, text);
    const place = source && h('span', { class: 'nanhunt-place' }, this._words.place(source));
    const inside: Child[] = [sign, h('span', {}, words, place)];
    if (!source) {
      return h('li', { class: `nanhunt-Sidebar-item nanhunt-mod-${kind}` }, ...inside);
    }
    const pressed = button('', () => this._actions.reveal(watch, source, finding), {
      class: 'nanhunt-Sidebar-button'
    });
    pressed.append(...inside.filter(child => child !== null));
    return h('li', { class: `nanhunt-Sidebar-item nanhunt-mod-${kind}` }, pressed);
  }

  private readonly _controls: Controls;
  private _followed: Title<Widget> | null = null;
  private readonly _title = h('h2', { class: 'nanhunt-Sidebar-title' });
  private readonly _told = h('p', { class: 'nanhunt-Sidebar-told', role: 'status' });
  private readonly _list = h('div');
}
