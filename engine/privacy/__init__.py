"""What a privacy officer works with: pure. Disclosures, unusual access, evidence, breaches; all rules are YAML."""
