"""From one sentence to a loop: the task and plan that it becomes, the agent and gates that are found."""
