# SPDX-License-Identifier: Apache-2.0
"""The colours of figures, viewer and pages."""

#: Colours (most by Okabe and Ito) that colour-blind readers can distinguish. The hypoperfusion is
#: brighter than the core, so that they differ without hue; outlines have a black rim on any map.
COLOURS = {
    'core': '#ff4d2e',
    'hypoperfusion': '#3ddc84',
    'mismatch': '#f0e442',
    'mismatch local': '#56b4e9',
    'sure': '#ff4d2e',
    'likely': '#e69f00',
    'possible': '#f0e442',
    'segmented': '#ffffff',
    'kept': '#ff4d2e',
    'removed': '#56b4e9',
    'added': '#cc79a7',
    'brain': '#f0e442',
    'tissue': '#56b4e9',
    'left': '#0072b2',
    'right': '#d55e00',
    'aif': '#d00000',
    'vof': '#0072b2',
    'tissue curve': '#009e73',
    'region': '#009e73',
    'candidate': '#d55e00',
    'followup': '#ffffff',
    'hit': '#56b4e9',
    'missed': '#f0e442',
    'false': '#d55e00',
}
#: Colours of grades, on white.
GRADES = {'pass': '#1b7a43', 'warn': '#9a6200', 'fail': '#b3261e'}
#: Grade whose colour each verdict has.
VERDICT_GRADES = {'usable': 'pass', 'look first': 'warn', 'do not use': 'fail'}
#: Text beside the main text, and numbers that are struck through.
SOFT, STRUCK = '#57656e', '#6b767d'
