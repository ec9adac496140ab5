"""OpenAI's CLIP as its published .pt files hold it: a TorchScript archive made by torch.jit.save.

The towers are cn_clip's classes, which are OpenAI's; the rest is what their archives have beside them: the text
transformer, its embeddings, and three buffers. Needs torch, cn_clip."""
import warnings

import torch
from cn_clip.clip import model as reference
from torch import nn


class OpenAIClip(nn.Module):
    """visual.* as the reference names it; names, shapes and buffers of OpenAI's `CLIP` for the rest."""

    def __init__(self, visual, embed_dim, context=8, words=12, width=8, layers=1, heads=1):
        super().__init__()
        self.visual = visual
        mask = torch.full((context, context), float("-inf")).triu_(1)
        self.transformer = reference.Transformer(width, layers, heads, attn_mask=mask)
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, width))
        self.ln_final = reference.LayerNorm(width)
        self.text_projection = nn.Parameter(width ** -0.5 * torch.randn(width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(4.6052))
        for name, value in (("input_resolution", visual.input_resolution), ("context_length", context),
                            ("vocab_size", words)):
            self.register_buffer(name, torch.tensor(value))

    def encode_image(self, image):
        return self.visual(image.type(self.visual.conv1.weight.dtype))

    def encode_text(self, text):
        x = self.token_embedding(text).type(self.visual.conv1.weight.dtype)
        x = x + self.positional_embedding.type(x.dtype)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = self.ln_final(x).type(x.dtype)
        return x[torch.arange(x.shape[0]), text.argmax(dim=-1)] @ self.text_projection

    def forward(self, image, text):
        return self.logit_scale.exp() * self.encode_image(image) @ self.encode_text(text).t()


def save(model, path, half=True):
    """The published types (convolutions, linears and projections in f16), traced as OpenAI's were, and saved."""
    if half:
        reference.convert_weights(model)
    side, words = int(model.input_resolution), int(model.vocab_size)
    text = torch.arange(int(model.context_length)).expand(2, -1) % words
    image = torch.zeros(2, 3, side, side)
    inputs = {"encode_image": image, "encode_text": text, "forward": (image, text)}
    warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
    torch.jit.save(torch.jit.trace_module(model.eval(), inputs, check_trace=False), path)
