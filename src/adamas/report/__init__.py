"""From artifacts to tables, remarks, plots, one HTML page and a model card; percentages exist only here."""
