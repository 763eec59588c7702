/** The widget that JupyterLab makes for a report in a notebook's output or in a file. */
import { renderHTML } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';
import { h } from '../dom';
import { host, strings } from '../host';
import { decodeReport } from './decode';
import type { Refusal } from './decode';
import { ReportView } from './view';
import { Wording } from './wording';

export class ReportRenderer extends Widget implements IRenderMime.IRenderer {
  constructor(private readonly _options: IRenderMime.IRendererOptions) {
    super();
    this.addClass('nanhunt-Renderer');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const words = new Wording(strings(this._options.translator));
    this._clear();
    const decoded = decodeReport(model.data[this._options.mimeType]);
    if (decoded.ok) {
      this._view = new ReportView(decoded.report, words, host.reveal);
      this.node.append(this._view.node);
    } else {
      await this._refuse(decoded.why, words, model);
    }
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._clear();
      super.dispose();
    }
  }

  /** Says why, and shows the report's HTML, if there is one, as what it is: not ours. */
  private async _refuse(
    why: Refusal,
    words: Wording,
    model: IRenderMime.IMimeModel
  ): Promise<void> {
    const told = h('p', { class: 'nanhunt-Renderer-refusal', role: 'alert' }, words.refusal(why));
    this.node.append(told);
    const html = model.data['text/html'];
    if (typeof html === 'string' || Array.isArray(html)) {
      const fallback = h('div', { class: 'jp-RenderedHTMLCommon' });
      this.node.append(fallback);
      await renderHTML({
        host: fallback,
        source: typeof html === 'string' ? html : html.join(''),
        trusted: false, // sanitised, and without scripts, also in a trusted notebook
        sanitizer: this._options.sanitizer,
        resolver: this._options.resolver,
        linkHandler: this._options.linkHandler,
        shouldTypeset: false,
        latexTypesetter: null
      });
    }
  }

  private _clear(): void {
    this._view?.dispose();
    this._view = null;
    this.node.replaceChildren();
  }

  private _view: ReportView | null = null;
}
