"""LeVo's codec: encoder, flow decoder, waveform autoencoder, and the tokenizer that they make."""
