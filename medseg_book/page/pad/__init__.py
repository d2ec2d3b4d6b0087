"""Drawing scribbles in a live notebook: `scribble_pad.ScribblePad` is what a chapter shows.

`strokes` knows what was drawn, without a screen; `slice_canvas` draws a slice and hears the mouse;
`controls` are the buttons and sliders around it.
"""
