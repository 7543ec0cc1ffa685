"""Server access logs: a line for each request to a bucket that asks for it, delivered to another bucket.

A line goes to a spool file of the node when its answer is sent, and from there, a while later, into an object. The spool file goes
when the objects are there, and their names are made of its name: a delivery that is cut short is done again, over what it had done.
"""
