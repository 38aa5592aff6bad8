"""What a model is made of beside its weights: folders, tokenizers, templates, output formats. Imports only core."""
