"""The seam to Keras: an optimizer that owns variables, and hands them to the pipeline.

The private Keras names relied on are `_iterations`, `_learning_rate`, `_get_current_learning_rate`, `_variables`,
`_trainable_variables`, `_trainable_variables_indices`, `_get_variable_index`, `_var_key`, `_use_weight_decay`,
`_track_variable`, `_untrack_variable` and `_model_variables_moving_average`; a test fails loudly when Keras
changes them.

`Core` is built up in layers, one file each: state, reading back, rate, options, the two points of Schedule-Free, the
loss, updates, accumulation, saving. Each uses those before it.
"""

from capibara_keras.core.saving import Core
from capibara_keras.core.structure import structure

__all__ = ["Core", "structure"]
