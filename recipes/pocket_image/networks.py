"""The networks: plain diffusers and transformers classes in small sizes, so that every loader reads them."""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from recipes.pocket_image.tokenizer import LENGTH_TOKENS
from speciate.models.pocket.draw import SIZE_PX

LATENT_CHANNELS = 8
LATENT_SIZE = SIZE_PX // 4
TEXT_WIDTH = 64


def make_autoencoder() -> AutoencoderKL:
    """32 x 32 pixels to 8 x 8 places of eight numbers, and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE_PX,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def make_text_encoder(vocab_size: int, end_token_id: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH_TOKENS,
            projection_dim=TEXT_WIDTH,
            pad_token_id=end_token_id,
            bos_token_id=end_token_id - 1,
            eos_token_id=end_token_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """Attention at 4 x 4 only, where the prompt is read; at 8 x 8 it doubled what a step of training costs."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_noise_schedule() -> DDIMScheduler:
    """Stable Diffusion's betas; the network predicts v (Salimans and Ho 2022)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
