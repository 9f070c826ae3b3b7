"""From YAML to values and objects: settings, instantiation, components, the policy, the resolved run."""
