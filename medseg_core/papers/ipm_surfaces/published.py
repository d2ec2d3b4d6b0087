"""What the paper prints, and its claims as this book judges them: fixed before the first run.

Each claim holds the arguments of `medseg_book.page.claims`; `if_fails` was added afterwards, where
an experiment of the chapter gives a reason.

Taught in: ipm-surfaces.
"""

RETINA = {  # JHU's retinas: MASD and its SD, µm; FCBR is the paper's own "FCBR-2"
    "IPM": ("2.78", "0.85"),
    "no IPM": ("2.83", "1.06"),
    "FCBR": ("2.79", "0.96"),
    "no smooth loss": ("2.83", "0.92"),
    "no region μ": ("2.79", "0.98"),
    "one channel": ("2.87", "0.96"),
    "dynamic σ": ("2.78", "0.95"),
    "weighted cross entropy": ("2.80", "0.97"),
    "plain KL": ("2.94", "0.89"),
}
METRICS = ("Jaccard", "Dice", "HD", "PAD")
IVUS = {  # data set B of the challenge, "contour: arm"; `METRICS`, HD in mm
    "lumen: IPM": ("0.85", "0.92", "0.36", "0.08"),
    "lumen: FCBR": ("0.87", "0.93", "0.43", "0.08"),
    "lumen: graph search": ("0.86", None, "0.37", "0.09"),
    "media: IPM": ("0.89", "0.94", "0.40", "0.06"),
    "media: FCBR": ("0.89", "0.94", "0.56", "0.07"),
    "media: graph search": ("0.90", None, "0.43", "0.07"),
}
CLAIMS = {
    "C1a": {
        "text": "with IPM no test column breaks the order (tolerance 1e-6 px); without it some do",
        "if_fails": "The network had learnt the order from the data alone in at least one seed.",
    },
    "C1b": {
        "text": "nor does any break a required gap, minimum or maximum; without it some do",
    },
    "C2": {
        "text": "the SD of the surface error is at least 5 % lower with IPM than without",
        "at_least": 0.05,
        "paper": "0.85 vs 1.06 µm (−20 %)",
        "if_fails": "Columns out of order are few and cross by little (see under the table), so "
        "ordering them moves no large error; and training through the layer adds nothing that "
        "could be told from the seeds.",
    },
    "C3": {
        "text": "the mean error with IPM is at most 2 % above that without",
        "at_most": 0.02,
        "paper": "2.78 vs 2.83 µm (−2 %)",
        "if_fails": "Three seeds do not pin a mean within the tolerance down to it: two trainings "
        "that differ in the layer alone end up to several per cent apart.",
    },
    "C4": {
        "text": "Algorithm 1 reaches the paper's ε within 10 iterations on at least 99 % of the "
        "columns",
        "at_least": 0.99,
        "null": 0.99,
        "paper": "at most 7 iterations",
    },
    "C5": {
        "text": "the smoothness loss lowers the mean error by at least 1 %",
        "at_least": 0.01,
        "paper": "2.78 vs 2.83 µm (1.8 %)",
        "if_fails": "It counts squared rows of nine surfaces and eight layers, many times the "
        "other losses, and pulls the network away from where its distributions had led it: the "
        "jump in the figure under Training.",
    },
    "C6": {
        "text": "μ from the regions lowers the SD of the error by at least 3 %",
        "at_least": 0.03,
        "paper": "0.85 vs 0.98 µm (13 %)",
        "if_fails": "Fusion helps a network that was trained with it (γ, ξ and μ under the "
        "table), but a soft-argmax that is trained alone gets as far by itself.",
    },
    "C7a": {
        "text": "IVUS: the media's Hausdorff distance is at least 3 % lower than FCBR's",
        "at_least": 0.03,
        "paper": "0.40 vs 0.56 mm (29 %)",
        "if_fails": "The seeds spread as widely as the gain.",
    },
    "C7b": {
        "text": "IVUS: mean Dice of lumen and media at most 0.01 below FCBR's",
        "at_least": -0.01,
        "paper": "0.92 and 0.94 vs 0.93 and 0.94",
        "if_fails": "The seeds spread as widely as the tolerance.",
    },
    "C8": {
        "text": "absolute errors in µm on JHU's and the Beijing Eye Study's scans",
        "paper": "2.78 ± 0.85 and 2.07 ± 0.91 µm",
        "detail": "absolute numbers belong to the paper's data and scale",
    },
}
