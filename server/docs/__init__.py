"""The documents generated from the declarations: OpenAPI, AsyncAPI and the page that shows them."""
