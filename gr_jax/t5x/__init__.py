"""What T5X's launcher needs to train our models; nothing else imports this."""
