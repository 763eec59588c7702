"""Architectures that others wrote, tiny and random: `transformers` and torch.nn's own.

Each entry builds (model, step_fn, optimizer): a real training step on fixed random inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

Built = tuple[nn.Module, Callable[[], Tensor], torch.optim.Optimizer]
OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=1e-3),
    lambda p: torch.optim.AdamW(p, lr=1e-3),
    lambda p: torch.optim.RMSprop(p, lr=1e-4),
    lambda p: torch.optim.Adagrad(p, lr=1e-3),
]

_TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DECODER = {**_TEXT, "num_key_value_heads": 1}
_SEQ2SEQ = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_IMAGE = {
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
}


def _tokens() -> dict[str, Tensor]:
    ids = torch.randint(3, 40, (2, 8))
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _image() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


def _large_image() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 64, 64)}


def _with_labels(make: Callable[[], dict[str, Tensor]], kind: str) -> dict[str, Tensor]:
    batch = make()
    if kind == "tokens":
        batch["labels"] = batch["input_ids"].clone()
    elif kind == "class":
        batch["labels"] = torch.tensor([0, 1])
    return batch


_HF: dict[str, tuple[str, str, dict[str, Any], Callable[[], dict[str, Tensor]], str]] = {
    "bert": ("BertForMaskedLM", "BertConfig", _TEXT, _tokens, "tokens"),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", _TEXT, _tokens, "class"),
    "electra": (
        "ElectraForMaskedLM",
        "ElectraConfig",
        {**_TEXT, "embedding_size": 16},
        _tokens,
        "tokens",
    ),
    "albert": (
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**_TEXT, "embedding_size": 8},
        _tokens,
        "tokens",
    ),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        _tokens,
        "tokens",
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
        _tokens,
        "tokens",
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _TEXT, _tokens, "tokens"),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _DECODER, _tokens, "tokens"),
    "mistral": ("MistralForCausalLM", "MistralConfig", _DECODER, _tokens, "tokens"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _DECODER, _tokens, "tokens"),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {**_DECODER, "head_dim": 8}, _tokens, "tokens"),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**_TEXT, "ffn_dim": 32, "word_embed_proj_dim": 16},
        _tokens,
        "tokens",
    ),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2},
        _tokens,
        "tokens",
    ),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
        _tokens,
        "tokens",
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 40,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 2,
            "num_heads": 2,
            "decoder_start_token_id": 0,
        },
        _tokens,
        "tokens",
    ),
    "bart": ("BartForConditionalGeneration", "BartConfig", _SEQ2SEQ, _tokens, "tokens"),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", _SEQ2SEQ, _tokens, "tokens"),
    "vit": ("ViTForImageClassification", "ViTConfig", _IMAGE, _image, "class"),
    "deit": ("DeiTForImageClassification", "DeiTConfig", _IMAGE, _image, "class"),
    "beit": ("BeitForImageClassification", "BeitConfig", _IMAGE, _image, "class"),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {
            "embedding_size": 8,
            "hidden_sizes": [8, 16],
            "depths": [1, 1],
            "layer_type": "basic",
            "num_labels": 3,
        },
        _large_image,
        "class",
    ),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "num_labels": 3},
        _large_image,
        "class",
    ),
    "mobilenet_v2": (
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"depth_multiplier": 0.25, "num_labels": 3},
        _large_image,
        "class",
    ),
}


def _hugging_face(name: str) -> nn.Module:
    model_class, config_class, options, _, _ = _HF[name]
    config = getattr(hf, config_class)(**options)
    return getattr(hf, model_class)(config)


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.cell = kind(8, 12, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(ids))[0][:, -1])


class _Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8)
        self.cell = nn.GRUCell(8, 8)
        self.mix = nn.Bilinear(8, 8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.bag(ids)
        return self.mix(x, self.cell(x))


class _Seq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.core(x, x, tgt_mask=mask)[:, -1])


def _conv(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        norm(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=2),
        norm(8),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


_TORCH: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "lstm": (lambda: _Recurrent(nn.LSTM), lambda: torch.randint(0, 20, (4, 6))),
    "gru": (lambda: _Recurrent(nn.GRU), lambda: torch.randint(0, 20, (4, 6))),
    "bilinear": (_Bilinear, lambda: torch.randint(0, 20, (4, 6))),
    "seq2seq": (_Seq2Seq, lambda: torch.randn(4, 5, 8)),
    "batch_norm": (lambda: _conv(nn.BatchNorm2d), lambda: torch.randn(4, 3, 12, 12)),
    "group_norm": (lambda: _conv(lambda n: nn.GroupNorm(2, n)), lambda: torch.randn(4, 3, 12, 12)),
    "instance_norm": (
        lambda: _conv(lambda n: nn.InstanceNorm2d(n, affine=True, track_running_stats=True)),
        lambda: torch.randn(4, 3, 12, 12),
    ),
    "conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3),
            nn.BatchNorm3d(4),
            nn.SiLU(),
            nn.ConvTranspose3d(4, 2, 2),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        lambda: torch.randn(2, 1, 6, 6, 6),
    ),
    "mlp": (
        lambda: nn.Sequential(
            nn.Linear(6, 16), nn.LayerNorm(16), nn.PReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        ),
        lambda: torch.randn(8, 6),
    ),
    "encoder": (
        lambda: nn.Sequential(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
                2,
                enable_nested_tensor=False,
            ),
            nn.Flatten(),
            nn.Linear(40, 3),
        ),
        lambda: torch.randn(4, 5, 8),
    ),
}

NAMES = [*_HF, *_TORCH]


def build(name: str, seed: int = 0) -> Built:
    """Builds a model with its training step; the same seed gives the same bits."""
    torch.manual_seed(seed)
    if name in _HF:
        model = _hugging_face(name)
        _, _, _, make, kind = _HF[name]
        batch = _with_labels(make, kind)

        def loss() -> Tensor:
            return model(**batch).loss
    else:
        make_model, make_input = _TORCH[name]
        model, x = make_model(), make_input()
        target = torch.arange(x.shape[0]) % 3
        model(x)  # lazy layers get their shape

        def loss() -> Tensor:
            return nn.functional.cross_entropy(model(x), target)

    model.train()
    optimizer = OPTIMIZERS[NAMES.index(name) % len(OPTIMIZERS)](model.parameters())

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return model, step, optimizer
