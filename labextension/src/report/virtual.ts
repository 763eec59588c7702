/** A list of any length of which only the rows in view are in the page. */
import { h } from '../dom';

/** Rows beyond both edges that are made as well, so that a short scroll finds them there. */
const MARGIN = 8;

export class VirtualList {
  /**
   * @param rowHeight Height of every row in pixels; the stylesheet has to agree.
   * @param makeRow Makes the row of an index; it is asked again whenever the row comes into view.
   * @param head What stays at the top while the rows scroll.
   */
  constructor(
    readonly rowHeight: number,
    private readonly _makeRow: (index: number) => HTMLElement,
    head: HTMLElement
  ) {
    this._rows = h('div', { class: 'nanhunt-VirtualList-rows', role: 'rowgroup' });
    this.node = h('div', { class: 'nanhunt-VirtualList' }, head, this._rows);
    this.node.addEventListener('scroll', this._onScroll, { passive: true });
    this._observer = new ResizeObserver(() => this._onResize());
    this._observer.observe(this.node);
  }

  readonly node: HTMLElement;

  get length(): number {
    return this._length;
  }

  /** Draws anew, with so many rows. */
  reset(length: number): void {
    this._length = length;
    this._rows.style.height = `${length * this.rowHeight}px`;
    this._rows.replaceChildren();
    this._made.clear();
    this._draw();
  }

  /** The element of a row, if it is in view. */
  row(index: number): HTMLElement | null {
    return this._made.get(index) ?? null;
  }

  /** Scrolls as little as it takes to have a row in view, at once or when it can be seen. */
  reveal(index: number): void {
    this._wanted = this.node.clientHeight === 0 ? index : null;
    const top = index * this.rowHeight;
    const room = this.node.clientHeight - this._rows.offsetTop - this.rowHeight;
    if (top < this.node.scrollTop) {
      this.node.scrollTop = top;
    } else if (top > this.node.scrollTop + room) {
      this.node.scrollTop = top - Math.max(0, room);
    }
    this._draw();
  }

  dispose(): void {
    this._observer.disconnect();
    this.node.removeEventListener('scroll', this._onScroll);
    this._made.clear();
  }

  private _onResize(): void {
    this._draw();
    if (this._wanted !== null) {
      this.reveal(this._wanted);
    }
  }

  private readonly _onScroll = () => this._draw();

  /** Makes the rows that came into view, and drops those that left it. */
  private _draw(): void {
    const { scrollTop, clientHeight } = this.node;
    const first = Math.max(0, Math.floor(scrollTop / this.rowHeight) - MARGIN);
    const inView = Math.ceil(clientHeight / this.rowHeight) + 2 * MARGIN;
    const last = Math.min(this._length, first + inView);
    for (const [index, row] of this._made) {
      if (index < first || index >= last) {
        row.remove();
        this._made.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (!this._made.has(index)) {
        const row = this._makeRow(index);
        row.style.top = `${index * this.rowHeight}px`;
        this._made.set(index, row);
        this._place(index, row);
      }
    }
  }

  /** Keeps the rows in the order in which they are read. */
  private _place(index: number, row: HTMLElement): void {
    const next = this._made.get(index + 1);
    this._rows.insertBefore(row, next ?? null);
  }

  private readonly _rows: HTMLElement;
  private readonly _made = new Map<number, HTMLElement>();
  private readonly _observer: ResizeObserver;
  private _length = 0;
  private _wanted: number | null = null;
}
