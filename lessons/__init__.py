"""The course: each module asks one question and answers it on the code that serves."""
