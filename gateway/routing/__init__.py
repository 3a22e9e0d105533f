"""Which upstream answers: attempts, their failures, breakers and the balance over replicas."""
