"""The recipe of mini: pool, tokenizer, VAE, tiny VAE, CLIP, then text encoder and denoiser together."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dreamspace.mini import parts
from dreamspace.mini.renders import HELD_OUT_SEED, draw, held_out_sceneries, training_sceneries
from dreamspace.mini.scenes import SCENES
from dreamspace.mini.stages import Stage
from dreamspace.mini.words import BEGINNINGS, vary_caption
from dreamspace.mini.world import CLASSES, COLOURS, PATTERNS, Scenery
from dreamspace.models.previews import pictures_of
from dreamspace.training.objective import min_snr_weights, per_sample_loss, signal_to_noise


@dataclass
class Recipe:
    """What all stages share: the pool (N, 128, 128, 3) uint8, its sceneries, and where they run."""

    work: Path
    pool: np.ndarray
    device: torch.device

    def __post_init__(self) -> None:
        self.sceneries = training_sceneries(len(self.pool))

    def rng(self, stage: str, step: int) -> np.random.Generator:
        return np.random.default_rng([*stage.encode(), step])

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of `count` pictures in the pool, and of each whether (1) or not (0) it is mirrored."""
        return rng.integers(len(self.pool), size=count), rng.integers(2, size=count)

    def pixels(self, indices: np.ndarray, mirrored: np.ndarray) -> Tensor:
        """Pictures of the pool as (B, 3, 128, 128) in [-1, 1]; `mirrored` says of each whether it is."""
        pairs = zip(indices, mirrored, strict=True)
        pictures = np.stack([self.pool[index][:, :: -1 if flip else 1] for index, flip in pairs])
        return to_pixels(pictures).to(self.device)


def shifted(pixels: Tensor, rng: np.random.Generator, most_px: int = 8) -> Tensor:
    """The batch moved by up to `most_px` in both directions, its border repeated."""
    down, right = rng.integers(0, 2 * most_px + 1, size=2)
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (most_px,) * 4, mode="replicate")[..., down : down + height, right : right + width]


def to_pixels(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_pictures(pixels: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] to (N, H, W, 3) uint8."""
    return np.stack([np.asarray(picture) for picture in pictures_of(pixels)])


def save_grid(rows: list[np.ndarray], path: Path) -> None:
    """Save rows of pictures, each (N, H, W, 3) uint8, as one image."""
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(path)


def reconstruction_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 + MSE + L1 of the picture's differences to its neighbours, which keeps edges crisp."""
    difference = decoded.float() - pixels
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + 2 * difference.square().mean() + 0.5 * edges


def vae_stage(recipe: Recipe, num_steps: int, batch_size: int = 16) -> Stage:
    held_out = to_pixels(draw(held_out_sceneries(8), HELD_OUT_SEED)).to(recipe.device)

    def loss(modules: dict[str, nn.Module], step: int) -> Tensor:
        rng = recipe.rng("vae", step)
        indices, mirrored = recipe.draw(rng, batch_size)
        pixels = recipe.pixels(indices, mirrored)
        posterior = modules["vae"].encode(pixels).latent_dist
        decoded = modules["vae"].decode(posterior.sample()).sample
        kl = (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean() / 2
        return reconstruction_loss(decoded, pixels) + 3e-4 * kl

    def picture(modules: dict[str, nn.Module], path: Path) -> None:
        with torch.no_grad():
            decoded = modules["vae"](held_out).sample
        save_grid([to_pictures(held_out), to_pictures(decoded)], path)

    return Stage("vae", {"vae": parts.new_vae()}, num_steps, 1.5e-3, loss, picture, ema_decay=0.995)


def tiny_vae_stage(recipe: Recipe, vae: nn.Module, num_steps: int, batch_size: int = 16) -> Stage:
    """The tiny decoder learns from the same latents as the VAE's; the tiny encoder to make them."""
    held_out = to_pixels(draw(held_out_sceneries(8), HELD_OUT_SEED)).to(recipe.device)
    scale = vae.config.scaling_factor
    cached = cache_latents(recipe, vae)

    def loss(modules: dict[str, nn.Module], step: int) -> Tensor:
        indices, mirrored = recipe.draw(recipe.rng("tiny_vae", step), batch_size)
        pixels = recipe.pixels(indices, mirrored)
        latents = cached[mirrored, indices].float().to(recipe.device)
        tiny = modules["tiny_vae"]
        # Previews never encode, so a few pictures a step are enough for the encoder.
        few = batch_size // 4
        encoded = tiny.encode(pixels[:few]).latents.float()
        decoded = tiny.decode(latents).sample
        return reconstruction_loss(decoded, pixels) + 0.1 * F.mse_loss(encoded, latents[:few])

    def picture(modules: dict[str, nn.Module], path: Path) -> None:
        with torch.no_grad():
            decoded = modules["tiny_vae"].decode(vae.encode(held_out).latent_dist.mode() * scale).sample
        save_grid([to_pictures(held_out), to_pictures(decoded)], path)

    return Stage(
        "tiny_vae", {"tiny_vae": parts.new_tiny_vae()}, num_steps, 2e-3, loss, picture, ema_decay=0.995
    )


def _tokens(tokenizer, captions: list[str]) -> Tensor:
    encoded = tokenizer(
        captions, padding="max_length", truncation=True, max_length=parts.MAX_TOKENS, return_tensors="pt"
    )
    return encoded.input_ids


def _fits(caption: str, scenery: Scenery) -> bool:
    """Whether everything that a caption says is true of a picture of `scenery`."""
    words = set(caption.split())
    said = ((scenery.colour, COLOURS), (scenery.class_word, CLASSES), (scenery.pattern, PATTERNS))
    if any((words & set(known)) - {value} for value, known in said):
        return False
    place = next((name for name, (phrase, _) in SCENES.items() if caption.endswith(phrase)), None)
    return place is None or place == scenery.scene


def clip_stage(recipe: Recipe, tokenizer, num_steps: int, batch_size: int = 48) -> Stage:
    """Contrastive training, and in each step the questions that a zero-shot classifier asks.

    Captions may say little ("a photo of a dog"), so several pictures of a batch can fit one; the targets
    share the probability among them, instead of calling all but one wrong as CLIP's own loss does.
    Scene and colour alone tell most pictures of a batch apart, and from the contrast shape is hardly
    learned: so each picture is also matched with the prompts of all classes, and with those of all patterns.
    """
    patterns = [word or "plain" for word in PATTERNS.values()]

    def loss(modules: dict[str, nn.Module], step: int) -> Tensor:
        rng = recipe.rng("clip", step)
        indices, mirrored = recipe.draw(rng, batch_size)
        sceneries = [recipe.sceneries[index] for index in indices]
        # "plain" is said here, because a caption without a pattern is true of every pattern.
        captions = [vary_caption(scenery, rng, plain_word="plain") for scenery in sceneries]
        beginning = str(rng.choice(BEGINNINGS))
        prompts = [f"{beginning} {word}" for word in CLASSES]
        prompts += [f"{beginning} {pattern} {word}" for word in CLASSES for pattern in patterns]

        clip = modules["clip"]
        image = clip.encode_image(shifted(recipe.pixels(indices, mirrored), rng), normalize=True)
        text = clip.encode_text(_tokens(tokenizer, captions + prompts).to(recipe.device), normalize=True)
        logits = clip.logit_scale.exp().clamp(max=100) * image.float() @ text.float().T
        by_caption, by_class, by_pattern = logits.split(
            [batch_size, len(CLASSES), len(CLASSES) * len(patterns)], dim=1
        )

        fits = [[float(_fits(caption, scenery)) for caption in captions] for scenery in sceneries]
        matches = torch.tensor(fits, device=recipe.device)
        of_image = F.cross_entropy(by_caption, matches / matches.sum(1, keepdim=True))
        of_text = F.cross_entropy(by_caption.T, matches.T / matches.T.sum(1, keepdim=True))
        classes = torch.tensor([CLASSES.index(scenery.class_word) for scenery in sceneries])
        asked = by_pattern.view(batch_size, len(CLASSES), len(patterns))[torch.arange(batch_size), classes]
        answers = torch.tensor([list(PATTERNS).index(scenery.pattern) for scenery in sceneries])
        of_class = F.cross_entropy(by_class, classes.to(recipe.device))
        of_pattern = F.cross_entropy(asked, answers.to(recipe.device))
        return (of_image + of_text) / 2 + of_class + of_pattern / 2

    return Stage("clip", {"clip": parts.new_clip()}, num_steps, 1e-3, loss, lambda modules, path: None)


@torch.no_grad()
def cache_latents(recipe: Recipe, vae: nn.Module, batch_size: int = 32) -> Tensor:
    """The pool's scaled latents, as drawn and mirrored: (2, N, 4, 16, 16) fp16, kept on disk."""
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in vae.state_dict().values())
    path = recipe.work / f"latents-{hashlib.sha256(weights).hexdigest()[:12]}.npy"
    if path.exists():
        return torch.from_numpy(np.load(path))
    encoded = []
    for start in range(0, len(recipe.pool), batch_size):
        pixels = to_pixels(np.array(recipe.pool[start : start + batch_size])).to(recipe.device)
        with torch.autocast(recipe.device.type, torch.bfloat16):
            pair = [vae.encode(view).latent_dist.mode().float().cpu() for view in (pixels, pixels.flip(-1))]
        encoded.append(torch.stack(pair))
    latents = (torch.cat(encoded, dim=1) * vae.config.scaling_factor).half()
    np.save(path, latents.numpy())
    return latents


def denoiser_stage(
    recipe: Recipe,
    tokenizer,
    vae: nn.Module,
    num_steps: int,
    sample: Callable[[dict[str, nn.Module], list[str]], np.ndarray],
    batch_size: int = 32,
) -> Stage:
    """UNet and text encoder together: epsilon prediction with Min-SNR weights (arXiv:2303.09556, gamma 5)."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**parts.noise_schedule())
    alphas = scheduler.alphas_cumprod.to(recipe.device)
    latents = cache_latents(recipe, vae)
    prompts = [scenery.caption() for scenery in held_out_sceneries(16)]

    def loss(modules: dict[str, nn.Module], step: int) -> Tensor:
        rng = recipe.rng("denoiser", step)
        indices, mirrored = recipe.draw(rng, batch_size)
        captions = [
            vary_caption(recipe.sceneries[index], rng) if rng.random() > 0.1 else "" for index in indices
        ]
        clean = latents[mirrored, indices].float().to(recipe.device)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32)).to(recipe.device)
        # One timestep from each of B equal slices: the batch always covers the whole range.
        timesteps = (
            torch.from_numpy((np.arange(batch_size) + rng.random(batch_size)) / batch_size * 1000)
            .long()
            .to(recipe.device)
        )
        embeds = modules["text_encoder"](_tokens(tokenizer, captions).to(recipe.device)).last_hidden_state
        prediction = modules["unet"](scheduler.add_noise(clean, noise, timesteps), timesteps, embeds).sample
        weights = min_snr_weights(signal_to_noise(alphas, timesteps), 5, "epsilon")
        return (weights * per_sample_loss(prediction, noise)).mean()

    def picture(modules: dict[str, nn.Module], path: Path) -> None:
        images = sample(modules, prompts)
        save_grid([images[:8], images[8:]], path)

    modules = {"unet": parts.new_unet(), "text_encoder": parts.new_text_encoder()}
    return Stage("denoiser", modules, num_steps, 1e-3, loss, picture, ema_decay=0.9995)
