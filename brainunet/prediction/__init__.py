"""From a patient's files to a segmentation in the same space, with volumes, a picture and a record of how it was made."""
