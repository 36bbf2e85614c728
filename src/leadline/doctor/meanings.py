"""What each cause does to a training, in one sentence that needs no vocabulary.

A finding's summary says what was seen; this says why it matters, the same for every network.
"""

from __future__ import annotations

MEANINGS: dict[str, str] = {
    # data
    "class_imbalance": "naming the commonest class is nearly always right, so the rest is "
    "hardly learned",
    "label_corrupted": "what the examples teach contradicts itself, so the network can only learn "
    "it by heart",
    "shuffle_missing": "examples of one kind come in a row, and each kind pushes out what the one "
    "before it taught",
    "data_worker_seed_dup": "several workers draw the same random changes, so there is less "
    "variety than it seems",
    "labels_shifted": "every label names a neighbour's place, so one class is never right and one "
    "may not exist",
    "data_modified_in_place": "the data change under the training's hands, so no two passes see "
    "the same examples",
    "input_not_finite": "one number that is no number spoils everything it is multiplied with, at "
    "once",
    # preprocessing
    "input_not_normalized": "inputs so large drive the first layer far off: its steps are too "
    "large or its units are stuck",
    "input_double_normalized": "inputs so small hardly move the first layer, so learning starts "
    "very slowly",
    "target_not_normalized": "the outputs begin near 0 and have to travel far; the first gradients "
    "are huge",
    "preprocess_train_test_mismatch": "the network is tested on something that looks unlike what "
    "it learned from",
    # activation
    "output_activation_wrong": "the network cannot give the answers that the loss asks of it",
    "hidden_activation_wrong": "the gradient shrinks at every layer, so the layers near the input "
    "hardly learn",
    "activation_missing": "layers without something nonlinear between them are no more than one "
    "layer",
    "activation_extra": "the outputs are squeezed before the loss squeezes them itself, so no "
    "answer can be sure",
    "double_softmax": "the network cannot become sure of an answer: the loss stays high and its "
    "gradient weak",
    # loss
    "loss_wrong": "what is made small is not what a right answer makes small",
    "loss_reduction_wrong": "the gradient grows with the number of examples, so the rate means "
    "something else for each batch size",
    "loss_axis_wrong": "examples compete with each other where classes should",
    "target_broadcast_shape": "every output is compared with every target instead of its own, so "
    "the mean is the best answer",
    "padding_in_loss": "the network is paid for predicting filler, and learns mostly that",
    "ignore_index_hits_class": "one class is left out of the loss, so it is never learned",
    # numerics
    "loss_numerically_unstable": "a single very sure answer gives infinity, and the training is "
    "lost from then on",
    "low_precision_update_lost": "steps smaller than the number format can hold are rounded away, "
    "so nothing changes",
    "low_precision_overflow": "numbers grow past what the format can hold and become infinite",
    "gradient_of_sqrt_at_zero": "at 0 the slope is infinite, and a gradient that is no number "
    "spoils all the weights",
    "nonfinite_value": "from the first NaN on, every weight becomes NaN and nothing more can be "
    "learned",
    "nondeterministic": "the same example gives another answer each time, also when it is used",
    # architecture
    "output_units_wrong": "there are fewer or other answers than the problem has",
    "capacity_too_small": "the network is too small to hold what is to be learned",
    "layer_missing": "a step that the network needs is not there",
    "layer_extra": "a layer throws away what the next ones need",
    "causal_mask_missing": "the network copies the answer from the future, and has none when it is "
    "used",
    "weight_tying_broken": "two layers that should share their weights go separate ways",
    "state_read_at_padding": "the answer is read after filler, where the sentence is partly "
    "forgotten",
    "batch_leak": "an answer depends on the other examples of the batch, and changes when they do",
    "parameters_unused": "these weights have no part in the answers, and nothing to learn from",
    # initialisation
    "init_constant": "units that begin the same stay the same, so a layer is worth a single unit",
    "init_bad_scale": "signals or gradients vanish or explode over the depth before the first step",
    # normalisation
    "norm_missing": "the layers near the input get a gradient of quite another size than the last "
    "ones",
    "norm_eval_stats_broken": "the network is another one in evaluation mode, so good training "
    "ends in bad answers",
    # regularisation
    "reg_missing": "nothing keeps the network from learning the examples by heart, so new ones go "
    "wrong",
    "reg_too_strong": "the weights are held so small that they cannot learn",
    "dropout_too_high": "too much of the signal is thrown away at each step to learn from the rest",
    "dropout_misuse": "noise is added where it harms, or when the network is only asked",
    # optimisation
    "lr_too_high": "every step overshoots: the loss jumps or grows instead of falling",
    "lr_too_low": "the steps are so small that the training ends long before it arrives",
    "lr_negative": "the steps go uphill, away from the answer",
    "optimizer_wrong": "this way of stepping does not suit the network, so it arrives late or not "
    "at all",
    "optimizer_params_wrong": "an option of the optimizer takes the steps' size or direction away",
    "batch_size_too_small": "each step follows a few examples only, so it goes back and forth",
    "batch_size_too_large": "there are too few steps to arrive",
    "epochs_too_few": "the training ends while it is still learning",
    # training loop
    "zero_grad_missing": "old gradients pile up, so each step follows the sum of all before it",
    "params_frozen": "these weights stay as chance drew them",
    "optimizer_missing_params": "the optimizer never changes these weights",
    "gradient_sign_flipped": "the training makes the loss larger on purpose",
    "zero_grad_misplaced": "the gradient is thrown away before it is used",
    "graph_cut": "the gradient stops on its way, so the layers before that place learn nothing",
    "params_unregistered": "torch does not know these layers: they are not trained, moved or saved",
    "optimizer_step_missing": "gradients are computed, and never used",
    "optimizer_recreated": "the optimizer forgets its momentum and its past again and again",
    "model_recreated": "the training begins anew with fresh weights, and what was learned is lost",
    "eval_mode_in_training": "dropout and batch statistics are off while the network learns",
    "scheduler_misused": "the rate is changed at the wrong time, mostly to nearly 0 far too early",
    "clip_misplaced": "the gradient is bounded too early or too late, so it is not bounded at all",
    "clip_too_small": "every step is cut so short that the training hardly moves",
    "accumulation_not_scaled": "the gradient is as many times too large as batches are added up",
    "best_state_by_reference": "the weights kept as the best ones go on changing with the training",
    # evaluation
    "validation_missing": "nobody looks whether the network can do more than repeat its examples",
    "validation_leak": "the examination has questions that were practised, so its marks are too "
    "good",
    "metric_on_logits": "the figure that is watched is not the one that is meant",
    "train_mode_in_evaluation": "the network is asked while dropout and batch statistics are on, "
    "so its answers are noise",
    "no_fault_control": "nothing: the training is as it should be",
}
"""The sentence for each word of the vocabulary."""


def meaning_of(cause: str) -> str:
    """What a cause does to a training; empty for a word that has no sentence.

    >>> meaning_of("lr_negative")
    'the steps go uphill, away from the answer'
    """
    return MEANINGS.get(cause, "")
