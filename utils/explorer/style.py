"""How the panel is laid out: one column of controls beside the picture, below it on a telephone."""

CSS = """
.explorer { display: flex; flex-flow: row nowrap; align-items: flex-start; gap: 8px 24px; }
.explorer-controls { flex: 0 0 312px; overflow: visible; }
.explorer-controls > .widget-vbox { overflow: visible; margin-bottom: 4px; }
.explorer-shown { flex: 1 1 0; min-width: 0; overflow: visible; }
.explorer .explorer-knob, .explorer .explorer-path { width: 304px; height: 28px; margin: 1px 2px; }
.explorer .explorer-status { white-space: normal; height: auto; line-height: 1.3;
  overflow-wrap: anywhere; font-weight: 600; }
.explorer-old { opacity: 0.35; }
.explorer-numbers td { padding: 0 1em 0 0; }
@media (max-width: 760px) {
  .explorer { flex-flow: column nowrap; align-items: stretch; }
  .explorer-shown { order: -1; position: sticky; top: 0; z-index: 9; flex: none;
    background: var(--jp-layout-color0, white); }
  .explorer-shown .explorer-picture { max-height: 46vh; object-fit: contain; }
  .explorer-controls { flex: none; }
  .explorer .explorer-knob, .explorer .explorer-path { width: 100%; height: 34px; }
}
"""
