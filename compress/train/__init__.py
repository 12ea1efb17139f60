"""Training: one loop for all passes that learn, the teacher, and the options they share.

``losses/`` is what a student is compared by, ``students/`` what learns. Import ``learning.Learning``.
"""
