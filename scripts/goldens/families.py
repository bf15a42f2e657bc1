"""tests/golden/models/: more tiny random models, one for each way a family computes, and bf16.json.

Llama, Mistral, Qwen (families_llama.py):
  llama-rope-llama3   rope_type llama3, frequencies in all three bands; old keys rope_theta, rope_scaling, torch_dtype
  llama-rope-linear   linear RoPE scaling under rope_parameters; tied
  llama-rope-dynamic  dynamic NTK, old keys (`type`); rows on both sides of max_position_embeddings 12. The reference is one
                      row at a time, each with a fresh model (`one_row_at_a_time` in cases.json says so)
  llama-biased        attention and MLP biases, head_dim 10 at hidden 24 and 3 heads, gelu_pytorch_tanh, tied
  llama-sharded       three float16 shards with an index; the values are float32's on the stored weights
  mistral-window      sliding window 5 in every layer; head_dim given, 2 key-value heads for 4, untied
  mistral-full        sliding_window null, old keys
  mistral-layers      layer_types in a Mistral file: transformers' Auto classes then take Ministral, which follows them
  qwen2-tiny          3 layers, the last two with a window of 5 (layer_types in the file); tied
  qwen2-old           no layer_types; sliding_window 5 without effect, since use_sliding_window is false; rope_theta 1e6
  qwen2-bf16          stored in bfloat16; no layer_types, so max_window_layers decides
  qwen3-tiny          head_dim 10 at hidden 24 and 4 heads; tied
  qwen3-sliding       layer_types against max_window_layers; attention biases; one key-value head; untied
GPT-2, GPT-NeoX, OPT (families_gpt.py):
  gpt2-scaled         scale_attn_weights false, relu, n_inner 33, head size 5
  gpt2-inverse        scale_attn_by_inverse_layer_idx, reorder_and_upcast_attn, silu, 3 layers
  neox-parallel       as old Pythia files: rotary_pct, rotary_emb_base, the attention's buffers; untied (`embed_out.weight`,
                      the gradient's name too)
  neox-serial         serial residual, no attention biases, rotary 0.5 with linear scaling, gelu_new; tied, new keys
  opt-pre             norms before (opt-125m), names as in the hub's old files (`decoder.`, no head)
  opt-post            norms after, word_embed_proj_dim 10 at hidden 24 (opt-350m)
  opt-plain           no biases, norms without weights, no final norm, gelu; untied
{neox,opt,mistral,qwen2,qwen3}-reward  one-label classifiers (OPT: the head's width is word_embed_proj_dim)

Made with PyTorch 2.13.0 and transformers 5.23.0; float32, eager attention (cases.py). Before a case is written its
options are switched one by one: the logits must show each (cases.check_options). Seeds: the two parts' docstrings.
"""

import bfloat16
import families_gpt
import families_llama


def make() -> None:
    families_llama.make()
    families_gpt.make()
    bfloat16.make()
