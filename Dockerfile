# One image for a Space, for a rented GPU and for any machine with Docker. CUDA comes with torch's wheels.
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user
WORKDIR /home/user/app
COPY requirements.lock.txt .
RUN pip install --no-cache-dir --requirement requirements.lock.txt
COPY --chown=user . .
USER user
ENV HOME=/home/user \
    HF_HOME=/home/user/.cache/huggingface \
    DREAMSPACE_HOME=/home/user/workspace \
    GRADIO_ANALYTICS_ENABLED=False
EXPOSE 7860
# Jobs outlive the app, so something must reap them: tini is process 1.
ENTRYPOINT ["tini", "--"]
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
