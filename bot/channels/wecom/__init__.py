"""WeCom (企业微信): what its app, its customer contact and its customer service have in common."""
