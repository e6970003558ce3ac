"""Every sentence of the documents, and the test that shows that it holds."""
