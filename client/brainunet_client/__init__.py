"""The hospital's side: does tasks on local cases and sends back only what the records of ``brainunet.records`` allow."""
