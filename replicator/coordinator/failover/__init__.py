"""Moving consumers to another cluster and back: the plan with its blockers, and carrying it out step by step."""
