"""What a choice takes on a device, from the device's kernel table: seconds of its products, and of what a
pass does beside them.
"""
