/** Reports in a notebook's outputs, and files named `*.nanhunt.json`. */
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { icon } from './icon';
import { MIME_TYPE } from './report/format';
import { ReportRenderer } from './report/renderer';

const extension: IRenderMime.IExtension = {
  id: 'nanhunt:report',
  description: 'Shows reports of nanhunt.',
  rendererFactory: {
    safe: true, // a report is shown as text, trusted or not
    mimeTypes: [MIME_TYPE],
    createRenderer: options => new ReportRenderer(options)
  },
  rank: 0,
  // A file is given as text, so that a damaged one can be refused in words.
  dataType: 'string',
  fileTypes: [
    {
      name: 'nanhunt-report',
      displayName: 'nanhunt report',
      mimeTypes: [MIME_TYPE],
      extensions: ['.nanhunt.json'],
      fileFormat: 'text',
      icon
    }
  ],
  documentWidgetFactoryOptions: {
    name: 'nanhunt report',
    modelName: 'text',
    primaryFileType: 'nanhunt-report',
    fileTypes: ['nanhunt-report'],
    defaultFor: ['nanhunt-report']
  }
};

export default extension;
