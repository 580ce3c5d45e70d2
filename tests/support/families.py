"""Small models of several families of transformers, with weights that matter."""

from __future__ import annotations

from typing import Any

NUMBERS: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "sliding_window": 8, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0}},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {},
    "mamba": {},
    "bloom": {},
    "qwen3_moe": EXPERTS | {"num_experts": 4},
    "deepseek_v3": EXPERTS | {
        "n_routed_experts": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
        "v_head_dim": 16, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4},
}  # fmt: skip


def config(family: str) -> dict[str, Any]:
    """A family's `config.json`."""
    return {"model_type": family} | NUMBERS | FAMILIES[family]


def made(family: str) -> Any:
    """A model whose tokens look at each other: first weights would hardly let them."""
    import torch

    from stackrt.train import mesh

    torch.manual_seed(1)
    model = mesh.skeleton(config(family), family).to_empty(device="cpu")
    model.apply(model._init_weights)  # type: ignore[arg-type]
    model.tie_weights()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        for name, buffer in model.named_buffers():
            if "correction" in name:
                torch.nn.init.normal_(buffer)
    return model.eval()
