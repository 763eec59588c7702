/**
 * What the running application offers to the parts of the extension that it does not start.
 *
 * JupyterLab makes report renderers without giving them its translator (in a document viewer) or
 * a way to open a cell or a file; the plugin in `index.ts` fills this in while it is active.
 */
import { nullTranslator } from '@jupyterlab/translation';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import type { IFinding, ISource } from './report/format';

/**
 * Goes to a line of the user's program.
 *
 * @param origin Where it was asked for.
 * @param finding Whose culprit the line is, if it is one.
 */
export type Reveal = (source: ISource, origin: Element, finding: IFinding | null) => void;

export interface IHost {
  translator: ITranslator;
  reveal: Reveal | null;
}

export const host: IHost = { translator: nullTranslator, reveal: null };

/** The strings of this extension in the user's language. */
export function strings(translator: ITranslator = host.translator): TranslationBundle {
  return translator.load('nanhunt');
}
