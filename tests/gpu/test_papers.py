"""What one paper alone needs gives on CUDA what it gives on the CPU, gradients included.

Networks and whole training steps stand in `test_models`.
"""

import ast
from pathlib import Path

import torch

from medseg_core import papers
from medseg_core.papers.bifseg_interactive import crf as interactive
from medseg_core.papers.bifseg_interactive import seed_models, weight_map
from medseg_core.papers.edpcnn import centres
from medseg_core.papers.ipm_surfaces import losses, surface_net
from medseg_core.papers.max_margin_crf import constraints, gradient
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.selected_dimensions_oct import losses as column_losses
from medseg_core.papers.selected_dimensions_oct import pixel_reference
from medseg_core.rng import generator

SIDE = 12
CUT = interactive.Cut(lam=2.0, sigma=0.3)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed, stream="gpu"))


def picture(n=2, side=SIDE):
    """A bright disc with noise, ``(N,1,H,W)``."""
    axis = torch.arange(side) - (side - 1) / 2
    disc = (axis[:, None] ** 2 + axis**2 < (side / 3) ** 2).float()
    return (disc + 0.2 * noise(n, 1, side, side)).clamp(-1, 2)


def image():
    return {"image": picture()}


def marked():
    image = picture()
    scribbles = torch.full((2, SIDE, SIDE), 255)
    scribbles[:, SIDE // 2, SIDE // 2], scribbles[:, 0] = 1, 0
    return {"image": image, "prob": (4 * image - 2).sigmoid(), "scribbles": scribbles}


def crf_inputs():
    image = picture()
    return {"image": image, "target": (image[:, 0] > 0.6).long(), "logits": 2 * noise(2, 1, 12, 12)}


def surfaces():
    truth, valid = 8 + 3 * noise(2, 3, 6), torch.ones(2, 3, 6, dtype=torch.bool)
    valid[0, :, 2], truth[0, :, 2] = False, float("nan")
    return {
        "log_p": noise(2, 3, 16, 6, seed=1).log_softmax(2),
        "found": 8 + 3 * noise(2, 3, 6, seed=2),
        "truth": truth,
        "weight": noise(2, 1, 16, 6, seed=3).abs(),
        "valid": valid,
    }


def entry(call, inputs, **more):
    return {"call": call, "inputs": inputs, **more}


def of_p(call):
    return entry(call, surfaces, wrt=("log_p",))


def of_position(function, **options):
    def call(log_p, found, truth, weight, valid):
        return function(found, truth, valid, **options)

    return entry(call, surfaces, wrt=("found",))


def target(truth):
    return losses.gaussian_target(truth, 16, 1.5)


def of_fit(function):
    """A function of Algorithm 1's result and the logits."""

    def call(image, target, logits):
        fit = MaxMarginCRF.from_images(image, target, C=2.0).fit(logits, eps=1e-7)
        return function(fit, logits)

    return entry(call, crf_inputs, tol=1e-3)


def cuts_of_the_crf(image, target, logits):
    model, w = MaxMarginCRF.from_images(image, target), (1.0, 0.3, 0.4)
    return model.infer(logits, w), model.most_violated(logits, w)


BIFSEG, IPM, MARGIN, COLUMNS = (
    "bifseg_interactive", "ipm_surfaces", "max_margin_crf", "selected_dimensions_oct"
)  # fmt: skip
TABLE = {
    f"{BIFSEG}.crf.crf_graphcut": entry(
        lambda image, prob, scribbles: interactive.crf_graphcut(prob, image, CUT, scribbles), marked
    ),
    f"{BIFSEG}.crf.crf_unary": entry(
        lambda image, prob, scribbles: interactive.crf_unary(prob, scribbles), marked
    ),
    f"{BIFSEG}.crf.crf_links": entry(
        lambda image: interactive.crf_links(image, CUT)[0], image, wrt=("image",)
    ),
    f"{BIFSEG}.weight_map.uncertainty_weights": entry(
        lambda image, prob, scribbles: weight_map.uncertainty_weights(prob, image, scribbles),
        marked,
    ),
    f"{BIFSEG}.weight_map.scribble_distance": entry(
        lambda image, prob, scribbles: weight_map.scribble_distance(image, scribbles, limit=0.5),
        marked,
    ),
    f"{BIFSEG}.seed_models.boykov_jolly": entry(
        lambda image, prob, scribbles: seed_models.boykov_jolly(image, scribbles, CUT), marked
    ),
    f"{BIFSEG}.seed_models.histogram_prob": entry(
        lambda image, prob, scribbles: seed_models.histogram_prob(image, scribbles), marked
    ),
    f"{BIFSEG}.seed_models.grabcut": entry(
        lambda image, prob, scribbles: seed_models.grabcut(image, scribbles, CUT, n_iter=2), marked
    ),
    "edpcnn.centres.random_centres": entry(
        lambda mask: centres.random_centres(mask, generator(0))[0],
        lambda: {"mask": picture() > 0.5},
    ),
    f"{IPM}.losses.gaussian_target": entry(
        lambda log_p, found, truth, weight, valid: losses.gaussian_target(
            truth, 16, found.abs() + 1
        ),
        surfaces,
        wrt=("found",),
    ),
    f"{IPM}.losses.gradient_weight": entry(
        lambda image: losses.gradient_weight(image), image, wrt=("image",)
    ),
    f"{IPM}.losses.weighted_divergence": of_p(
        lambda log_p, found, truth, weight, valid: losses.weighted_divergence(
            log_p, target(truth), weight, valid
        )
    ),
    f"{IPM}.losses.kl_divergence": of_p(
        lambda log_p, found, truth, weight, valid: losses.kl_divergence(log_p, target(truth), valid)
    ),
    f"{IPM}.losses.surface_cross_entropy": of_p(
        lambda log_p, found, truth, weight, valid: losses.surface_cross_entropy(
            log_p, truth, valid, weight
        )
    ),
    f"{IPM}.losses.smooth_loss": of_position(losses.smooth_loss),
    f"{IPM}.losses.smooth_loss: circular": of_position(losses.smooth_loss, circular=True),
    f"{IPM}.losses.l1_loss": of_position(losses.l1_loss),
    f"{IPM}.losses.smooth_l1_loss": of_position(losses.smooth_l1_loss),
    f"{IPM}.surface_net.region_boundaries": entry(
        lambda image: surface_net.region_boundaries((image[:, 0] > 0).long(), 2), image
    ),
    f"{IPM}.surface_net.gradient_channels": entry(
        lambda image: surface_net.gradient_channels(image, circular=True), image, wrt=("image",)
    ),
    f"{IPM}.surface_net.running_maximum": entry(
        lambda image: surface_net.running_maximum(image[:, 0]), image, wrt=("image",)
    ),
    f"{MARGIN}.constraints.pair_weights": entry(
        lambda image: torch.from_numpy(constraints.pair_weights(image[0], 8)),
        image,
        on_cpu="a NumPy array",
    ),
    f"{MARGIN}.crf.MaxMarginCRF": entry(cuts_of_the_crf, crf_inputs),
    f"{MARGIN}.gradient.margin_loss": entry(
        lambda image, target, logits: gradient.margin_loss(
            logits, MaxMarginCRF.from_images(image, target, C=2.0), eps=1e-7
        )[0],
        crf_inputs,
        wrt=("logits",),
        tol=1e-3,
    ),
    f"{MARGIN}.gradient.envelope_gradient": of_fit(gradient.envelope_gradient),
    f"{MARGIN}.gradient.kkt_gradient": of_fit(gradient.kkt_gradient),
    f"{MARGIN}.gradient.hinge_subgradient": entry(
        lambda image, target, logits: gradient.hinge_subgradient(
            logits, MaxMarginCRF.from_images(image, target), (1.0, 0.3, 0.4)
        ),
        crf_inputs,
    ),
    f"{COLUMNS}.losses.hard_column_mse": entry(
        lambda log_p, found, truth, weight, valid: column_losses.hard_column_mse(
            found, truth, valid[:, 0]
        ),
        surfaces,
        wrt=("found",),
    ),
    f"{COLUMNS}.pixel_reference.region_borders": entry(
        lambda image: pixel_reference.region_borders(torch.cat([image, -image], 1)), image
    ),
}
# Whole modules that the table leaves out.
PLUMBING = "settings, loaders, arms, scores: they call the rest, and the chapter's runs cover them"
MODULES_LEFT_OUT = {
    f"{BIFSEG}.experiment": PLUMBING,
    f"{BIFSEG}.figures": "draws",
    f"{BIFSEG}.first_try": "the first pictures, on the CPU",
    f"{BIFSEG}.knobs": PLUMBING,
    f"{BIFSEG}.leak": "scenes of a figure, on the CPU",
    f"{BIFSEG}.methods": PLUMBING,
    f"{BIFSEG}.misprint": "an exercise, on the CPU",
    f"{BIFSEG}.panels": "draws",
    f"{BIFSEG}.sessions": PLUMBING,
    f"{BIFSEG}.refine": "in test_models",
    f"{BIFSEG}.study": PLUMBING,
    f"{BIFSEG}.verdicts": "texts and margins",
    "edpcnn.arms": PLUMBING,
    "edpcnn.drawing": "draws",
    "edpcnn.evaluation": PLUMBING,
    "edpcnn.experiment": PLUMBING,
    "edpcnn.gradient_quality": "of maps that are kept on the CPU",
    "edpcnn.maps": PLUMBING,
    "edpcnn.marginal_loss": "a solver's marginals, which are in test_solvers",
    "edpcnn.pixel_loss": "in test_models",
    "edpcnn.printed": "a table of text",
    "edpcnn.rereading": PLUMBING,
    "edpcnn.star_approximator": "in test_models",
    "edpcnn.stopwatch": PLUMBING,
    "edpcnn.synthetic_gradient": "in test_models",
    "edpcnn.untrained": PLUMBING,
    f"{IPM}.classical": PLUMBING,
    f"{IPM}.experiment": PLUMBING,
    f"{IPM}.ivus_experiment": PLUMBING,
    f"{IPM}.recipes": PLUMBING,
    f"{IPM}.scores": PLUMBING,
    f"{IPM}.stopping": "calls the solver, which is in test_solvers",
    f"{IPM}.studies": PLUMBING,
    f"{MARGIN}.cutting_planes": "NumPy in and out",
    f"{MARGIN}.diagnosis": PLUMBING,
    f"{MARGIN}.experiment": PLUMBING,
    f"{MARGIN}.fcn8": "in test_models",
    f"{MARGIN}.floors": PLUMBING,
    f"{MARGIN}.outcomes": PLUMBING,
    f"{MARGIN}.qp": "NumPy in and out",
    f"{MARGIN}.scores": PLUMBING,
    f"{MARGIN}.statements": "texts and margins",
    f"{MARGIN}.toys": "toy images, on the CPU",
    f"{MARGIN}.training": PLUMBING,
    f"{COLUMNS}.augment": PLUMBING,
    f"{COLUMNS}.blocks": "in test_models",
    f"{COLUMNS}.experiment": PLUMBING,
    f"{COLUMNS}.fading": PLUMBING,
    f"{COLUMNS}.figures": "draws",
    f"{COLUMNS}.lab": "scenes of a slider, on the CPU",
    f"{COLUMNS}.network": "in test_models",
    f"{COLUMNS}.receptive_field": "counts on a copy of the network on the CPU",
    f"{COLUMNS}.sampler": PLUMBING,
    f"{COLUMNS}.scores": PLUMBING,
}
LEFT_OUT = {
    "edpcnn.centres.dice_off_centre": PLUMBING,
    "edpcnn.centres.jittered_centres": "draws on the CPU, for the data set",
    f"{MARGIN}.constraints.unpack": "NumPy in and out",
    f"{MARGIN}.gradient.kkt_matrix": "NumPy out",
    f"{MARGIN}.gradient.kkt_right_side": "NumPy out",
    f"{COLUMNS}.pixel_reference.region_step": PLUMBING,
}


def test_the_answer_of_the_cpu(entry, lane, agrees):
    agrees(entry, lane)


def test_no_function_is_forgotten():
    folder, found, modules = Path(papers.__path__[0]), set(), set()
    for path in folder.glob("*/*.py"):
        module = f"{path.parent.name}.{path.stem}"
        if path.stem == "__init__":
            continue
        modules.add(module)
        if module not in MODULES_LEFT_OUT:
            nodes = ast.parse(path.read_text()).body
            functions = [n.name for n in nodes if isinstance(n, ast.FunctionDef)]
            found |= {f"{module}.{name}" for name in functions if not name.startswith("_")}
    assert set(MODULES_LEFT_OUT) <= modules
    tabled = {name.partition(":")[0] for name in TABLE} - {f"{MARGIN}.crf.MaxMarginCRF"}
    assert found == tabled | set(LEFT_OUT)
