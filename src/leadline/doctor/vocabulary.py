"""The words for causes: one list, everywhere the same, sorted by family.

The families and most of the words are those of the studies of real training faults; those that
Leadline adds for what such studies do not cover say so in `OWN`.
"""

from __future__ import annotations

from leadline.core.names import look_up

FAMILIES: dict[str, tuple[str, ...]] = {
    "data": (
        "class_imbalance",
        "label_corrupted",
        "shuffle_missing",
        "data_worker_seed_dup",
        "labels_shifted",
        "data_modified_in_place",
        "input_not_finite",
    ),
    "preprocessing": (
        "input_not_normalized",
        "input_double_normalized",
        "target_not_normalized",
        "preprocess_train_test_mismatch",
    ),
    "activation": (
        "output_activation_wrong",
        "hidden_activation_wrong",
        "activation_missing",
        "activation_extra",
        "double_softmax",
    ),
    "loss": (
        "loss_wrong",
        "loss_reduction_wrong",
        "loss_axis_wrong",
        "target_broadcast_shape",
        "padding_in_loss",
        "ignore_index_hits_class",
    ),
    "numerics": (
        "loss_numerically_unstable",
        "low_precision_update_lost",
        "low_precision_overflow",
        "gradient_of_sqrt_at_zero",
        "nonfinite_value",
        "nondeterministic",
    ),
    "architecture": (
        "output_units_wrong",
        "capacity_too_small",
        "layer_missing",
        "layer_extra",
        "causal_mask_missing",
        "weight_tying_broken",
        "state_read_at_padding",
        "batch_leak",
        "parameters_unused",
    ),
    "initialisation": ("init_constant", "init_bad_scale"),
    "normalisation": ("norm_missing", "norm_eval_stats_broken"),
    "regularisation": ("reg_missing", "reg_too_strong", "dropout_too_high", "dropout_misuse"),
    "optimisation": (
        "lr_too_high",
        "lr_too_low",
        "lr_negative",
        "optimizer_wrong",
        "optimizer_params_wrong",
        "batch_size_too_small",
        "batch_size_too_large",
        "epochs_too_few",
    ),
    "training_loop": (
        "zero_grad_missing",
        "params_frozen",
        "optimizer_missing_params",
        "gradient_sign_flipped",
        "zero_grad_misplaced",
        "graph_cut",
        "params_unregistered",
        "optimizer_step_missing",
        "optimizer_recreated",
        "model_recreated",
        "eval_mode_in_training",
        "scheduler_misused",
        "clip_misplaced",
        "clip_too_small",
        "accumulation_not_scaled",
        "best_state_by_reference",
    ),
    "evaluation": (
        "validation_missing",
        "validation_leak",
        "metric_on_logits",
        "train_mode_in_evaluation",
    ),
    "control": ("no_fault_control",),
}

OWN = frozenset(
    {"input_not_finite", "nonfinite_value", "nondeterministic", "batch_leak", "parameters_unused"}
)
"""Words that only Leadline has: no word of the published studies fits."""


def family_of(cause: str) -> str:
    """The family a cause belongs to; an unknown word gets 'did you mean'.

    >>> family_of("double_softmax")
    'activation'
    """
    homes = {word: family for family, words in FAMILIES.items() for word in words}
    return look_up(cause, homes, kind="cause")
