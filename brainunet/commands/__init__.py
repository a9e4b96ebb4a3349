"""The commands of ``brainunet``, a file each, cheap to import: what is heavy is imported by the function that needs it."""
