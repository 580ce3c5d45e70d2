"""What the trainer of sharded language models needs to fine-tune: adapters (LoRA), and dialogues as text."""
