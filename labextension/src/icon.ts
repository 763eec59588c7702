/** The extension's sign in the theme's colour for icons, as JupyterLab takes it for a file type. */
export const icon = {
  name: 'nanhunt:icon',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">' +
    '<path class="jp-icon3" fill="#616161" d="M4 20V4h2.4l4.1 7.2V4h2.3v16h-2.4L6.3 12.7V20z' +
    'M15 14.6l1.4-1.4 1.8 1.8 1.8-1.8 1.4 1.4-1.8 1.8 1.8 1.8-1.4 1.4-1.8-1.8-1.8 1.8-1.4-1.4 1.8-1.8z"/>' +
    '</svg>'
};
